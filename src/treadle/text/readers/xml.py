"""XML of no kind that is known better: the text of its elements, one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator

from treadle.text.readers.decoding import decode
from treadle.text.readers.markup import local, parse_xml
from treadle.text.readers.piece import Documents, Text, UnreadableError

_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
# Elements that are part of a line of text rather than a block of their own.
_INLINE = frozenset("a abbr b bold code em emph ext-link i italic mark q s small span strong sub sup tt u xref".split())


def read(data: bytes, options: Documents) -> Iterator[Text]:
    """The text of all elements; blocks stand apart by lines."""
    source, encoding = decode(data)
    root = parse_xml(_DECLARATION.sub("", source, count=1).lstrip("\ufeff").encode("utf-8"), "it")
    words: list[str] = []
    for event, element in _walk(root):
        if event == "start":
            words.append(("" if local(element) in _INLINE else "\n") + (element.text or ""))
        else:
            words.append(("" if local(element) in _INLINE else "\n") + (element.tail or ""))
    lines = (" ".join(line.split()) for line in "".join(words).split("\n"))
    text = "\n".join(line for line in lines if line)
    if not text:
        raise UnreadableError("XML without text")
    yield Text(text, fields={} if encoding == "utf-8" else {"encoding": encoding})


def _walk(root: object) -> Iterator[tuple[str, object]]:
    from lxml import etree

    yield from etree.iterwalk(root, events=("start", "end"))
