"""XML of no kind that is known better: the text of its elements, one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from treadle.text.readers.decoding import decode
from treadle.text.readers.markup import local, parse_xml
from treadle.text.readers.piece import Documents, Piece, Text, Unreadable, UnreadableError

_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
# Elements that are part of a line of text rather than a block of their own.
_INLINE = frozenset({"a", "abbr", "b", "bold", "code", "em", "emph", "ext-link", "i", "italic", "mark", "q", "s",
                     "small", "span", "strong", "sub", "sup", "tt", "u", "xref"})  # fmt: skip


def read(data: bytes, options: Documents) -> Iterator[Piece]:
    """The text of all elements; blocks stand apart by lines. Where XML breaks off, what came before is kept."""
    source, encoding = decode(data)
    plain = _DECLARATION.sub("", source, count=1).lstrip("\ufeff").encode("utf-8")
    broken = ""
    try:
        root = parse_xml(plain, "it")
    except UnreadableError as error:
        if "well-formed" not in str(error):
            raise
        broken = str(error)
        root = parse_xml(plain, "it", up_to_break=True)
    words: list[str] = []
    for event, element in _walk(root):
        words.append("" if local(element) in _INLINE else "\n")
        words.append((element.text if event == "start" else element.tail) or "")
    lines = (" ".join(line.split()) for line in "".join(words).split("\n"))
    text = "\n".join(line for line in lines if line)
    if not text:
        raise UnreadableError("XML without text")
    if broken:
        yield Unreadable(f"{broken}; what could be read of it was kept")
    yield Text(text, fields={} if encoding == "utf-8" else {"encoding": encoding})


def _walk(root: Any) -> Iterator[tuple[str, Any]]:
    from lxml import etree

    yield from etree.iterwalk(root, events=("start", "end"))
