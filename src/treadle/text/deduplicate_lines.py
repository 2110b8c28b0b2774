"""Lines or paragraphs that stand in earlier documents: taken out of the later ones, and counted."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from blake3 import blake3

from treadle.core.errors import UserError
from treadle.text.accounting import Dropped, Note
from treadle.text.document import Document
from treadle.text.transform import Piece, declare

if TYPE_CHECKING:
    from numpy.typing import NDArray

RULE = "deduplicate_lines.nothing_left"
_BETWEEN = {"line": re.compile(r"\n"), "paragraph": re.compile(r"\n[^\S\n]*\n\s*")}
_JOINT = {"line": "\n", "paragraph": "\n\n"}


@declare(version=2, ordered=True)
class DeduplicateLines:
    """Takes out each line, or paragraph, that an earlier document has; shorter ones than ``min_chars`` stay.

    A refrain within one document stays as well, and so do conversations. The first document by the corpus's order
    keeps what is repeated; a document of which nothing is left is dropped.
    """

    def __init__(self, *, unit: Literal["line", "paragraph"] = "line", min_chars: int = 20) -> None:
        if min_chars < 1:
            raise UserError(f"deduplicate_lines: min_chars is {min_chars}; expected 1 or more")
        self._unit, self._min_chars = unit, min_chars
        self._seen = SeenNumbers()

    def __call__(self, documents: Sequence[Document]) -> Iterator[Piece]:
        """The documents without what earlier ones have."""
        split = [self._pieces(document) for document in documents]
        keys = [[self._key(piece) for piece in pieces] for pieces in split]
        known = self._seen.among([key for each in keys for key in each if key is not None])
        removed = changed = 0
        shorter: list[str] = []
        here: set[int] = set()
        for document, pieces, mine in zip(documents, split, keys, strict=True):
            again = [key is not None and (key in known or key in here) for key in mine]
            here.update(key for key in mine if key is not None)
            if not any(again):
                yield document
                continue
            removed += sum(again)
            changed += 1
            left = (
                _JOINT[self._unit]
                .join(piece for piece, gone in zip(pieces, again, strict=True) if not gone)
                .strip("\n")
            )
            if left.strip():
                shorter.append(document.id)
                yield replace(document, text=left)
            else:
                yield Dropped(document, RULE, f"every {self._unit} of it stands in earlier documents")
        self._seen.add(here)
        yield Note(f"deduplicate_lines.{self._unit}s", removed, tuple(shorter))
        yield Note("deduplicate_lines.documents", changed, tuple(shorter))

    def _pieces(self, document: Document) -> list[str]:
        if document.fields.get("messages"):
            return []
        return _BETWEEN[self._unit].split(document.text)

    def _key(self, piece: str) -> int | None:
        """Names the words of a piece; None for one that is too short to be looked for."""
        plain = " ".join(piece.split())
        if len(plain) < self._min_chars:
            return None
        if not plain.isascii():
            plain = unicodedata.normalize("NFC", plain)
        # Among 10^8 lines, one is taken for another by chance with probability 0.0003.
        return int.from_bytes(blake3(plain.encode("utf-8", "surrogatepass")).digest(8), "big")


class SeenNumbers:
    """A set of 64-bit numbers in 8 bytes each: sorted arrays, of which each is longer than all after it."""

    def __init__(self) -> None:
        self._runs: list[NDArray[np.uint64]] = []

    def add(self, numbers: set[int]) -> None:
        """Remember these."""
        run = np.array(sorted(numbers), dtype=np.uint64)
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.union1d(self._runs.pop(), run)
        self._runs.append(run)

    def among(self, numbers: Sequence[int]) -> set[int]:
        """Those of ``numbers`` that were added."""
        asked = np.unique(np.array(numbers, dtype=np.uint64))
        found: set[int] = set()
        for run in self._runs:
            if len(run):
                places = np.minimum(np.searchsorted(run, asked), len(run) - 1)
                found.update(asked[run[places] == asked].tolist())
        return found
