"""Secrets do not enter the store, the ledger or a log: what looks like one is found and concealed."""

from __future__ import annotations

import os
import re

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
    | (?<=://)[^\s/:@]{1,256}:[^\s/@]{1,256}(?=@)                # user:password in a URL
    | (?i:\b(?:password|passwd|secret|token|api[_-]?key)\b\s*[:=]\s*["']?)(?!\$\{env:)[^\s"']{6,}
    """
)
_NAMES = re.compile(r"(?i)(?:^|_)(?:api)?(?:key|token|secret|password|passwd|credentials?)(?:_|$)")
_KEY = re.compile(r"(?i)(?:^|_)(?:password|passwd|secret|token|api[_-]?key)$")
_REFERENCE = re.compile(r"\$\{env:[A-Za-z_][A-Za-z0-9_]*\}\Z")
_SHORTEST = 8  # characters; shorter values of the environment would conceal ordinary words


def find(text: str) -> list[str]:
    """What looks like a secret in ``text``, and values of the environment whose name says that they are one."""
    found = [match.group() for match in _SHAPES.finditer(text)]
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _NAMES.search(name) and value in text:
            found.append(value)
    return found


def conceal(text: str) -> str:
    """The text with every secret replaced by ``[secret]``."""
    for secret in sorted(find(text), key=len, reverse=True):  # the longest first: one may hold another
        text = text.replace(secret, "[secret]")
    return text


def resolve(value: str) -> str:
    """A setting's value, read from the environment where it is ``${env:NAME}``; ``UserError`` when it is not set."""
    if not _REFERENCE.match(value):
        return value
    name = value[len("${env:") : -1]
    found = os.environ.get(name)
    if not found:
        raise UserError(f"the variable {name} of the environment is not set, and {value} names it; export {name}=...")
    return found


def is_secret(key: str, value: str) -> bool:
    """Whether a setting holds a secret itself, where it should name a variable of the environment."""
    if _REFERENCE.match(value) or not value:
        return False
    return bool(_KEY.search(key)) or bool(find(value))
