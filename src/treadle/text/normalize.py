"""One form for one text: Unicode NFC, one kind of line end, no control characters, no space at the end of a
line.

Doing it twice changes nothing. The words, their case and their order stay as they are.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby

from treadle.text.accounting import Note
from treadle.text.document import Document, map_text
from treadle.text.transform import Piece, declare

# Line ends of the Unicode standard, section 5.8; vertical tab and form feed separate lines as well.
_LINE_END = re.compile("[\r\x0b\x0c\x85\u2028\u2029]")
# Controls, interlinear annotation, deprecated format characters, byte order marks and noncharacters: nothing
# a reader sees.
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u206a-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff]")
# Canonical ordering takes time quadratic in a run of combining marks; UAX #15 (Stream-Safe Text) allows 30 of
# them.
_LONGEST_RUN = 256
_FIRST_MARK = 0x300
# Looked for first, and quick: a run of marks is within one of these.
_BEYOND_LATIN = re.compile(f"[^\x00-\u02ff]{{{_LONGEST_RUN + 1},}}")


def normalized(text: str) -> str:
    """The normal form of a text."""
    text = _UNSEEN.sub("", _LINE_END.sub("\n", text.replace("\r\n", "\n")))
    if not text.isascii() and not _overloaded(text):
        text = unicodedata.normalize("NFC", text)
    if " \n" in text or "\t\n" in text or not text.isascii() or text[-1:].isspace():
        text = "\n".join(line.rstrip() for line in text.split("\n"))
    return text.strip("\n")


@declare(version=1)
def normalize(documents: Sequence[Document]) -> Iterator[Piece]:
    """Text and the strings of the fields in normal form; how many documents changed is noted."""
    changed = []
    for document in documents:
        result = map_text(document, normalized)
        if result is not document:
            changed.append(document.id)
        yield result
    yield Note("normalize.changed", len(changed), tuple(changed))


def _overloaded(text: str) -> bool:
    """More marks on one letter than any writing has; such a text is left as it is rather than waited for."""
    marks = _marks()
    for run in _BEYOND_LATIN.finditer(text):
        if not marks.isdisjoint(run[0]):
            found = (len([*group]) for marked, group in groupby(run[0], marks.__contains__) if marked)
            if max(found) > _LONGEST_RUN:
                return True
    return False


@functools.cache
def _marks() -> frozenset[str]:
    return frozenset(chr(code) for code in range(_FIRST_MARK, 0x1F000) if unicodedata.combining(chr(code)))
