"""Between spans of characters, which people see, and a tag a word, which a model gives.

A tag is ``O``, ``B-TYPE`` where a span begins or ``I-TYPE`` where it goes on (IOB2, Ramshaw and Marcus 1995).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Span = tuple[int, int, str]  # first character, the one after the last, type
OUTSIDE = "O"

# Scripts that write no space between words: each of their letters is a word here.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+|[^\w\s]")


def words(text: str) -> list[tuple[int, int]]:
    """Where the words are: runs of letters and digits, and every other character that is no space by itself."""
    return [found.span() for found in _WORD.finditer(text)]


def tags_of(places: Sequence[tuple[int, int]], spans: Sequence[Span]) -> list[str]:
    """A tag for each word. Of a span that covers part of a word, the word is; of two spans in one word, the first."""
    tags = [OUTSIDE] * len(places)
    at = 0
    for start, end, kind in sorted(spans):
        while at < len(places) and places[at][1] <= start:
            at += 1
        begun = False
        while at < len(places) and places[at][0] < end:
            tags[at] = f"{'I' if begun else 'B'}-{kind}"
            begun = True
            at += 1
    return tags


def spans_of(places: Sequence[tuple[int, int]], tags: Sequence[str]) -> list[Span]:
    """The spans that tags say. An ``I`` that continues nothing begins a span, as conlleval has it."""
    found: list[Span] = []
    last = OUTSIDE
    for (start, end), tag in zip(places, tags, strict=True):
        prefix, _, kind = tag.partition("-")
        if tag != OUTSIDE:
            if prefix == "I" and last.partition("-")[2] == kind:
                found[-1] = (found[-1][0], end, kind)
            else:
                found.append((start, end, kind))
        last = tag
    return found
