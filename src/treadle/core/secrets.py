"""Secrets do not enter the store, the ledger or a log: what looks like one is found and concealed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from treadle.core.errors import UserError

# Shapes published by the issuers, and the usual spellings of a password in a text or a URL. A reference to the
# environment, ``${env:NAME}``, is no secret.
_SHAPES = re.compile(
    r"""(?x)
    \b(?:AKIA|ASIA)[0-9A-Z]{16}\b                                # AWS access key id
    | \bgh[pousr]_[A-Za-z0-9]{36,}\b                             # GitHub token
    | \bgithub_pat_[A-Za-z0-9_]{22,}                             # GitHub fine-grained token
    | \bglpat-[A-Za-z0-9_-]{20,}                                 # GitLab token
    | \bxox[abprs]-[A-Za-z0-9-]{10,}                             # Slack token
    | \bsk-[A-Za-z0-9_-]{20,}                                    # OpenAI style key
    | \bhf_[A-Za-z0-9]{30,}\b                                    # Hugging Face token
    | \bAIza[A-Za-z0-9_-]{35}                                    # Google API key
    | \beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}   # JSON web token
    | -----BEGIN[ A-Z]*PRIVATE\ KEY-----(?s:.*?)(?:-----END[ A-Z]*PRIVATE\ KEY-----|\Z)
    | (?<=://)(?!(?:[^\s/:]|\$\{env:\w+\}){0,256}:\$\{env:\w+\}@)
      [^\s/:]{0,256}:[^\s/]{1,256}(?=@)                           # user:password in a URL, or :password
    | (?i:(?:[;?&]|%3B)(?:pwd|password)(?:=|%3D))[^\s;&"'%$\{<\[/][^\s;&"'%]{0,256}   # of ODBC
    | (?i:\bauthorization["'\]]{0,2}\s*[:=,]\s*["']?(?:bearer|basic|token)\s+)[^\s"'$\{<]{3,}
    | (?i:\bbearer\s+)(?=[^\s"']*\d)[A-Za-z0-9._~+/-]{12,}=*
    """
)
# A name's last word, then a value: ``DB_PASSWORD=...``, ``"api_key": "..."``, ``environ["HF_TOKEN"] = "..."``,
# ``password: str = "..."``, ``setdefault("HF_TOKEN", "...")``.
_ASSIGNED = re.compile(
    r"""(?x)
    (?P<word>(?i:password|passwd|passphrase|pwd|secret|token|credentials?|key)) (?:_?\d{1,2})? (?![A-Za-z0-9_])
    [\\"'\])]{0,4}
    (?:\s*:\s*[A-Za-z_][\w.\[\]|\ ]{0,40}?\s*=(?!=) | \s*(?::=|=>|={1,3}|:) | (?<=["'])(?P<comma>\s*,)(?=\s*["']))
    [^\S\n]*
    (?:[bfruBFRU]{0,2}\\*(?P<quote>["'])(?P<quoted>[^"'\n\\]{6,}) | (?P<bare>[^\s"']{6,}))
    """
)
_BEFORE = re.compile(r"[A-Za-z0-9_-]*\Z")  # the rest of the name, to the left of its last word
_LONGEST_NAME = 80  # characters
_NAMES = re.compile(r"(?i)(?:^|_)(?:api)?(?:key|token|secret|password|passwd|passphrase|credentials?)(?:_|$)")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SECRET = _words("password passwd passphrase pwd secret token credential credentials apikey")
# Names that end in ``key`` are those of secrets, or of columns and tables: of the first kind surely, of the second.
_SECRET_KEY = _words("api access account auth encryption master private secret service signing ssh storage")
_OTHER_KEY = _words(
    "answer cache column composite config data dict document field foreign group hash id image index input item join"
    " key label lookup map message metric name natural object order output partition primary prompt public query"
    " question reference response row score sort source split state step table target text unique value"
)
# Pieces of a text, which language models call tokens too.
_OTHER_TOKEN = _words(
    "bos by class cls current each end eos extra first image last mask max min new next num of pad per prev previous"
    " sep special start stop text tool unk"
)
_NUMBER = re.compile(r"[-+]?(?:\d{1,9}|\d*\.\d+)(?:[eE][-+]?\d+)?[,;)\]}]*\Z")
_CODE = re.compile(r"[A-Za-z_][\w.]*[(\[]|[A-Za-z_]+(?:\.[A-Za-z_]+)+[,;:)\]}]*\Z")  # a call, or an attribute
_WORDS = re.compile(r"[A-Za-z_]+[,;:)\]}]*\Z")
_NO_VALUE = re.compile(r"\$\{env:|\$\{?[A-Za-z_]\w*\}?[,;)]*\Z|\{+[\w.]*\}+\Z|\[[A-Z_]+\]\Z|<[^>]*>\Z")
_REFERENCE = re.compile(r"\$\{env:[A-Za-z_][A-Za-z0-9_]*\}\Z")
_PLACEHOLDER = re.compile(r"<[A-Z_]{1,40}>\Z")  # what transformers puts in the place of a token
_SHORTEST = 8  # characters; shorter values of the environment would conceal ordinary words


def find(text: str) -> list[str]:
    """What looks like a secret in ``text``, and values of the environment whose name says that they are one."""
    found = [match.group() for match in _SHAPES.finditer(text)] + list(_assigned(text))
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _NAMES.search(name) and value in text:
            found.append(value)
    return found


def _assigned(text: str) -> Iterator[str]:
    """Assignments of a secret, from the name on."""
    place = 0
    while match := _ASSIGNED.search(text, place):
        place = match.end("word")  # what comes after the name may be the name of another one
        before = _BEFORE.search(text, max(0, match.start() - _LONGEST_NAME), match.start())
        begin = before.start() if before else match.start()
        name = text[begin:place].lstrip("-_")
        if _holds(name, match):
            place = match.end()
            yield text[begin:place].lstrip("-_")


def _holds(name: str, match: re.Match[str]) -> bool:
    """Whether what is assigned to a name in a text is a secret, and no number, reference or piece of a program."""
    kind, value = _kind(name), match["quoted"] or match["bare"]
    if not kind or _NO_VALUE.match(value) or (kind == "token" and _NUMBER.match(value)):
        return False
    if kind == "key" or match["comma"]:
        return len(value) >= _SHORTEST and bool(re.search(r"\d", value)) and not re.search(r"[\s(]", value)
    if match["quoted"]:
        return True
    if value.rstrip(",;)]}") == name:  # an argument that is handed on
        return False
    spaced = match.group()[: match.start("bare") - match.start()].endswith(" ")
    if kind == "secret" and name.isupper() and not spaced:  # of a shell or an .env file, which hold no program
        return True
    return not _CODE.match(value) and not (kind == "token" and spaced and _WORDS.match(value) and name != "token")


def _kind(name: str) -> str:
    """``secret`` or ``token`` for the name of a secret, ``key`` for one that may be, and nothing for others."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_").replace(".", "_").replace(" ", "_")
    *before, last = re.sub(r"(?<=[a-z])_?\d{1,2}\Z", "", snake.strip("_")).split("_")
    if last == "key":
        if not before or before[-1] in _OTHER_KEY:
            return ""
        return "secret" if before[-1] in _SECRET_KEY else "key"
    if last == "token":
        return "" if before and before[-1] in _OTHER_TOKEN else "token"
    if last == "pwd" and not before:  # the working folder
        return ""
    return "secret" if last in _SECRET or last.endswith(("password", "passwd", "passphrase")) else ""


def conceal(text: str) -> str:
    """The text with every secret replaced by ``[secret]``."""
    for secret in sorted(set(find(text)), key=len, reverse=True):  # the longest first: one may hold another
        text = text.replace(secret, "[secret]")
    return text


def is_reference(value: str) -> bool:
    """Whether a setting's value names a variable of the environment, as ``${env:NAME}``."""
    return _REFERENCE.match(value) is not None


def resolve(value: str) -> str:
    """A setting's value, read from the environment where it is ``${env:NAME}``; ``UserError`` when it is not set."""
    if not is_reference(value):
        return value
    name = value[len("${env:") : -1]
    found = os.environ.get(name)
    if not found:
        raise UserError(f"the variable {name} of the environment is not set, and {value} names it; export {name}=...")
    return found


def is_secret(key: str, value: str) -> bool:
    """Whether a setting holds a secret itself, where it should name a variable of the environment."""
    if is_reference(value) or not value or _PLACEHOLDER.match(value):
        return False
    kind = _kind(key)
    if kind == "key":  # of a service, or a column: the first are longer, and one word
        return (len(value) >= _SHORTEST and not re.search(r"\s", value)) or bool(find(value))
    return (bool(kind) and not (kind == "token" and _NUMBER.match(value) is not None)) or bool(find(value))
