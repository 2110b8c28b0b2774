"""LaTeX source as text, by pylatexenc: what a reader of the paper would read; formulas stay as they are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from treadle.core.errors import MissingExtra
from treadle.text.readers.decoding import decode
from treadle.text.readers.piece import Documents, Text, UnreadableError

_BODY = re.compile(r"\\begin\s*\{document\}(.*?)(?:\\end\s*\{document\}|\Z)", re.DOTALL)
_TITLE = re.compile(r"\\title\s*(?:\[[^\]]*\])?\s*\{")
_AUTHOR = re.compile(r"\\author\s*(?:\[[^\]]*\])?\s*\{")
_DEEPEST = 400  # open groups
_NO_TEXT = ("label", "ref", "eqref", "cite", "citep", "citet", "vspace", "hspace", "vskip", "includegraphics",
            "bibliographystyle", "bibliography", "input", "include", "pagestyle", "thispagestyle", "maketitle",
            "today", "date")  # fmt: skip
_HEADINGS = ("title", "author", "part", "chapter", "section", "subsection", "subsubsection", "paragraph",
             "subparagraph")  # fmt: skip
_LONGEST_ARGUMENT = 20_000  # characters
_SPACES = re.compile(r"[ \t]+")
_LINES = re.compile(r"\n\s*\n\s*")
_BLOCKS = re.compile(r"\n[ \t]*\n\s*")
_COMMENT = re.compile(r"(?<!\\)%.*")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}(?:\[[^\]]*\])?|\\(?:label|ref|cite[a-z]*)\s*\{[^{}]*\}")
_COMMAND = re.compile(r"\\(?:[a-zA-Z]+\*?|([%&$#_{}])|.)", re.DOTALL)
_GROUP = re.compile(r"\\(begin|end)\s*\{|[{}]|\\.", re.DOTALL)


def read(data: bytes, options: Documents) -> Iterator[Text]:
    """The text of one file; what it takes in by ``\\input`` is a file of its own. Title and authors go before it."""
    source, encoding = decode(data)
    if _too_deep(source):
        raise UnreadableError(f"groups nested deeper than {_DEEPEST}")
    body = _BODY.search(source)
    before = source[: body.start()] if body else ""
    titles = [_plain(argument) for argument in _arguments(_TITLE, source)[:1]]
    front = [_plain(argument) for argument in _arguments(_TITLE, before)[:1] + _arguments(_AUTHOR, before)]
    text = "\n\n".join(filter(None, [*front, _plain(body[1] if body else source)]))
    if not text:
        raise UnreadableError("LaTeX without text")
    title = " ".join("".join(titles).split())[:500]
    yield Text(text, title=title or None, fields={} if encoding == "utf-8" else {"encoding": encoding})


def _plain(source: str) -> str:
    """Strictly where that goes. Tolerance makes pylatexenc go back and forth for ever over a brace that is missing, so
    what is not well-formed is read by paragraphs, and a paragraph that is not loses its commands.
    """
    convert = _converter()
    text = convert(source)
    if text is None:
        blocks = _BLOCKS.split(source)
        text = "\n\n".join(_bare(block) if (found := convert(block)) is None else found for block in blocks)
    lines = (_SPACES.sub(" ", line).strip() for line in text.split("\n"))
    return _LINES.sub("\n\n", "\n".join(lines)).strip()


def _bare(source: str) -> str:
    """Without comments, the names of commands, and braces."""
    text = _COMMAND.sub(lambda match: match[1] or " ", _ENVIRONMENT.sub("", _COMMENT.sub("", source)))
    return text.replace("{", "").replace("}", "").replace("~", " ")


def _converter() -> Callable[[str], str | None]:
    """A function from LaTeX to text; None for what is not well-formed."""
    try:
        from pylatexenc.latex2text import (
            EnvironmentTextSpec,
            LatexNodes2Text,
            MacroTextSpec,
            get_default_latex_context_db,
        )
        from pylatexenc.latexwalker import LatexWalkerError
    except ImportError:
        raise MissingExtra("pylatexenc", extra="documents") from None
    context = get_default_latex_context_db()
    context.add_context_category(
        "treadle",
        prepend=True,
        # Its own headings are in capitals after a sign, and its title block has the date of today.
        macros=[MacroTextSpec(name, discard=True) for name in _NO_TEXT]
        + [MacroTextSpec(name, _heading) for name in _HEADINGS]
        + [MacroTextSpec("item", "\n- ")],
        environments=[EnvironmentTextSpec("tikzpicture", discard=True)],
    )
    converter: Any = LatexNodes2Text(latex_context=context, math_mode="verbatim", keep_comments=False)

    def convert(source: str) -> str | None:
        try:
            return str(converter.latex_to_text(source, tolerant_parsing=False))
        except (LatexWalkerError, RecursionError, ValueError, IndexError, TypeError, AttributeError, KeyError):
            return None

    return convert


def _heading(node: Any, l2tobj: Any) -> str:
    """The last argument on lines of its own. pylatexenc looks at the names of the parameters."""
    arguments = [argument for argument in node.nodeargd.argnlist if argument is not None] if node.nodeargd else []
    return f"\n\n{l2tobj.nodelist_to_text(arguments[-1:])}\n\n"


def _arguments(command: re.Pattern[str], source: str) -> list[str]:
    """What stands in the braces of each such command, up to the brace that closes them."""
    found = []
    for match in command.finditer(source):
        depth = 1
        for end in range(match.end(), min(len(source), match.end() + _LONGEST_ARGUMENT)):
            depth += {"{": 1, "}": -1}.get(source[end], 0)
            if depth == 0:
                found.append(source[match.end() : end])
                break
    return found


def _too_deep(source: str) -> bool:
    depth = 0
    for match in _GROUP.finditer(source):
        # `\begin{` opens the group of its name as well, and `\end{` closes one and opens that of its name.
        depth = max(0, depth + {"{": 1, "}": -1}.get(match[0], 2 if match[1] == "begin" else 0))
        if depth > _DEEPEST:
            return True
    return False
