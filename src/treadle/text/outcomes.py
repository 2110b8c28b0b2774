"""What becomes of a piece of a file: a document with its id, a piece in quarantine, a document that a rule drops, or
one that waits for its reader.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from treadle.text.accounting import Dropped, Quarantined
from treadle.text.document import Document, document_id
from treadle.text.readers.piece import Piece, Unreadable
from treadle.text.readers.workers import Workers
from treadle.text.row_mapping import UnusableRowError, source_time

SOURCE = "files"
Outcome = Document | Dropped | Quarantined
T = TypeVar("T")
_MOST_WAITING = 64  # pieces that wait for one before them that a worker reads
_MOST_BYTES_WAITING = 1 << 26


@dataclass(frozen=True, slots=True)
class Pending:
    """A document that a worker reads; ``outcomes`` makes of its pieces what they are."""

    future: Future[Sequence[Piece]]
    outcomes: Callable[[Sequence[Piece]], Iterator[Outcome]]
    size: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file something is: how it is called in locators and by its own name, and how deep it lies."""

    locator: str
    name: str
    depth: int = 0

    @property
    def source(self) -> str:
        """As ``Quarantined`` names it."""
        return f"{SOURCE}:{self.locator}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a worker's document comes from: its locator, and how what cannot be read of it is named. ``time`` is that
    of whoever kept it, and goes before the document's own; ``modified`` counts where the document names none.
    """

    locator: str
    source: str
    offset: int = 0
    words: str = ""
    time: str | None = None
    modified: str | None = None


class Outcomes:
    """Makes them, with what all documents of a source have in common (license, origin ...)."""

    def __init__(
        self, common: Mapping[str, Any], keyed: Callable[[str], str], workers: Workers, source: str = SOURCE
    ) -> None:
        self._source = source
        self._common = common
        self._keyed = keyed
        self._workers = workers

    def dropped(self, locator: str, rule: str, reason: str) -> Dropped:
        """A piece that is left out, as it is counted."""
        empty = Document(document_id(self._source, locator, b""), self._source, locator, "", **self._common)
        return Dropped(empty, rule, reason)

    def text(self, locator: str, data: bytes, text: str, fields: dict[str, Any]) -> Outcome:
        """A whole text that was read here."""
        if not text.strip():
            return Quarantined(f"{self._source}:{locator}", 0, "empty: nothing but white space")
        identity = document_id(self._source, locator, data)
        return Document(identity, self._source, locator, text, fields=fields, **self._common)

    def pending(self, kind: str, data: bytes, origin: Origin, fields: dict[str, Any]) -> Pending:
        """A document that a worker reads."""
        future = self._workers.submit(kind, data)
        return Pending(future, lambda pieces: self._of(pieces, data, origin, fields), len(data))

    def _of(self, pieces: Sequence[Piece], data: bytes, origin: Origin, fields: dict[str, Any]) -> Iterator[Outcome]:
        for piece in pieces:
            if isinstance(piece, Unreadable):
                source = origin.source + piece.part
                yield Quarantined(source, origin.offset + piece.offset, origin.words + piece.reason)
                continue
            locator = origin.locator + piece.part
            time, more = _time(origin.time or piece.time or origin.modified)
            if origin.time and piece.time:
                more["published"] = piece.time
            if piece.title:
                more["title"] = piece.title
            subject = None
            if piece.person:
                subject = more["from"] = self._keyed(piece.person)
            raw = data if piece.raw is None else piece.raw
            yield Document(
                id=document_id(self._source, locator, raw),
                source=self._source,
                locator=locator,
                text=piece.text,
                time=time,
                subject=subject,
                fields={**fields, **more, **piece.fields},
                **self._common,
            )
        if not pieces:
            yield Quarantined(origin.source, origin.offset, f"{origin.words}empty: there is nothing in it to read")


def in_order(found: Iterator[Outcome | Pending | T]) -> Iterator[Outcome | T]:
    """Pieces in the order they were found, while workers read ahead within bounds. What else comes along stays where
    it is.
    """
    waiting: deque[Outcome | Pending | T] = deque()
    size = 0
    for piece in found:
        waiting.append(piece)
        size += _size(piece)
        while waiting and (
            not isinstance(waiting[0], Pending)
            or waiting[0].future.done()
            or len(waiting) > _MOST_WAITING
            or size > _MOST_BYTES_WAITING
        ):
            size -= _size(waiting[0])
            yield from _settled(waiting.popleft())
    while waiting:
        yield from _settled(waiting.popleft())


def _settled(piece: Outcome | Pending | T) -> Iterator[Outcome | T]:
    if isinstance(piece, Pending):
        yield from piece.outcomes(piece.future.result())
    else:
        yield piece


def _size(piece: object) -> int:
    return piece.size if isinstance(piece, Pending) else len(getattr(piece, "text", ""))


def _time(value: str | None) -> tuple[str | None, dict[str, Any]]:
    """ISO 8601; what is none (a year alone) is kept among the fields."""
    if not value:
        return None, {}
    try:
        return source_time(value), {}
    except UnusableRowError:
        return None, {"published": value[:100]}
