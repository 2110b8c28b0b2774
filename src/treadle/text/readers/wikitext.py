"""Wikitext as plain text: what a reader of the page sees, without templates, tables, references and pictures."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from treadle.text.readers.piece import Documents, Text, UnreadableError

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_DROPPED = re.compile(
    r"<(ref|gallery|timeline|math|score|syntaxhighlight|imagemap|templatestyles)\b[^<>]*?(?:/>|>.*?</\1\s*>)",
    re.DOTALL | re.IGNORECASE,
)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_SWITCH = re.compile(r"__[A-Z]{3,}__")
_HEADING = re.compile(r"^(={1,6})\s*(.*?)\s*\1\s*$", re.MULTILINE)
_EXTERNAL = re.compile(r"\[(?:https?|ftp):?//[^\s\[\]]+(?:\s+([^\[\]]*))?\]")
_QUOTES = re.compile(r"'{2,5}")
_LIST = re.compile(r"^[*#:;]+\s*", re.MULTILINE)
_LINES = re.compile(r"\n{3,}")
_BRACES = re.compile(r"\{\{|\}\}|\{\||\|\}")
_LINKS = re.compile(r"\[\[|\]\]")
# What a link begins with that shows no text: a picture, a category, another language's page.
_SILENT = re.compile(r"\s*(?:file|image|category|[a-z]{2,3}(?:-[a-z]+)?)\s*:", re.IGNORECASE)
_OPEN = {"{{": "}}", "{|": "|}"}


def read(data: bytes, options: Documents) -> Iterator[Text]:
    """The text of one page, given as UTF-8."""
    text = plain(data.decode("utf-8", "replace"))
    if not text:
        raise UnreadableError("a page without text")
    yield Text(text)


def plain(source: str) -> str:
    """Wikitext without markup."""
    text = _DROPPED.sub("", _COMMENT.sub("", source))
    text = _links(_without_braces(text))
    text = _SWITCH.sub("", _EXTERNAL.sub(lambda match: match[1] or "", text))
    text = _HEADING.sub(r"\n\2\n", _QUOTES.sub("", _TAG.sub("", text)))
    text = html.unescape(_LIST.sub("", text)).replace("\xa0", " ")
    lines = (line.rstrip() for line in text.split("\n"))
    return _LINES.sub("\n\n", "\n".join(lines)).strip()


def _without_braces(text: str) -> str:
    """Without templates and tables, nested ones included; one that is never closed ends at the next empty line."""
    kept: list[str] = []
    opened: list[str] = []
    at = begin = 0
    for match in _BRACES.finditer(text):
        mark = match[0]
        if mark in _OPEN:
            if not opened:
                kept.append(text[at : match.start()])
                begin = match.start()
            opened.append(_OPEN[mark])
        elif mark in opened:
            # Whatever was opened since and never closed is closed with it.
            del opened[len(opened) - 1 - opened[::-1].index(mark) :]
            at = match.end()
    if opened:
        end = text.find("\n\n", begin)
        return "".join(kept) + ("" if end < 0 else _without_braces(text[end:]))
    kept.append(text[at:])
    return "".join(kept)


def _links(text: str) -> str:
    """Links as the words they show; pictures and categories show none."""
    stack: list[list[str]] = [[]]
    at = 0
    for match in _LINKS.finditer(text):
        stack[-1].append(text[at : match.start()])
        at = match.end()
        if match[0] == "[[":
            stack.append([])
        elif len(stack) > 1:
            inside = "".join(stack.pop())
            stack[-1].append(_shown(inside))
    stack[-1].append(text[at:])
    return "".join("".join(level) for level in stack)


def _shown(link: str) -> str:
    if _SILENT.match(link):
        return ""
    target, bar, words = link.partition("|")
    return words if bar else target.lstrip(":")
