"""Which documents came out of which unit, noted while they are collected and kept when the corpus is there.

Documents are counted as they are read. Where erasure takes some out after that, places in the corpus are others than
that count, and a unit that lost one is forgotten: it is read again.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from treadle.core.digest import canonical_json
from treadle.core.store import Store
from treadle.text.accounting import Dropped, Quarantined
from treadle.text.corpus import Corpus, read_names
from treadle.text.document import Document

FORMAT = 1
_ID = 8  # bytes of an id that tell a document from its neighbors
_SCHEMA = f"""
PRAGMA journal_mode = OFF;
CREATE TABLE units (key BLOB PRIMARY KEY, first INTEGER NOT NULL, documents INTEGER NOT NULL, ids BLOB NOT NULL,
    broken INTEGER NOT NULL, quarantined INTEGER NOT NULL, dropped BLOB);
CREATE TABLE corpus (digest TEXT NOT NULL, documents INTEGER NOT NULL,
    read INTEGER NOT NULL, unchanged INTEGER NOT NULL, gone INTEGER NOT NULL);
PRAGMA user_version = {FORMAT};
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """Pieces that were read, pieces that were taken over, and earlier documents that did not come again."""

    read: int
    unchanged: int
    gone: int

    def line(self) -> str:
        """For a person."""
        return f"{self.read:,} read, {self.unchanged:,} unchanged and taken over, {self.gone:,} documents gone"


class Notes:
    """The cache that is being made. ``keep`` names it, ``close`` alone leaves nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.new_folder("collected-")
        self._path = self._folder / "collected.db"
        self._database = sqlite3.connect(self._path)
        self._database.executescript(_SCHEMA)
        self._ids = (self._folder / "ids").open("w+b")
        self._count = self._broken = 0
        self._key: bytes | None = None
        self._forget()

    def _forget(self) -> None:
        self._first, self._first_broken = self._count, self._broken
        self._hasher = blake3()
        self._dropped: list[list[str]] = []

    def begin(self, key: bytes | None) -> None:
        """The unit before is complete, and another begins; None for what belongs to none."""
        if self._key is not None:
            documents, quarantined = self._count - self._first, self._broken - self._first_broken
            row = (self._key, self._first, documents, id_digest(self._hasher), self._first_broken, quarantined)
            self._database.execute("INSERT OR IGNORE INTO units VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, self._sealed()))
        self._key = key
        self._forget()

    def piece(self, piece: Document | Dropped | Quarantined) -> None:
        """A piece that is no document is counted here; one that was dropped with a text is not kept anywhere."""
        if isinstance(piece, Quarantined):
            self._broken += 1
        elif isinstance(piece, Dropped):
            document = piece.document
            if document.text or document.subject or piece.private or piece.twin or piece.span:
                self.spoil()
            else:
                self._dropped.append([document.id, document.source, document.locator, piece.rule, piece.reason])

    def kept(self, document: str) -> None:
        """A document went on."""
        self._hasher.update(document.encode())
        self._ids.write(_short(document))
        self._count += 1

    def spoil(self) -> None:
        """The unit is not to be taken over."""
        self._key = None

    def keep(self, corpus: Corpus, counts: Counts, path: Path) -> None:
        """Put the cache in its place, all at once."""
        if corpus.document_count() != self._count:
            self._move(corpus)
        row = (corpus.digest, corpus.document_count(), counts.read, counts.unchanged, counts.gone)
        self._database.execute("INSERT INTO corpus VALUES (?, ?, ?, ?, ?)", row)
        self._database.commit()
        self._database.close()
        self._path.replace(path)

    def close(self) -> None:
        """Leave nothing but what was kept."""
        self._database.close()
        self._ids.close()
        for name in ("collected.db", "ids"):
            (self._folder / name).unlink(missing_ok=True)
        self._folder.rmdir()

    def _sealed(self) -> bytes | None:
        if not self._dropped:
            return None
        data, cipher = canonical_json(self._dropped), self._store.cipher
        return data if cipher is None else cipher.encrypt(data)

    def _move(self, corpus: Corpus) -> None:
        """Give units the places that their documents have in the corpus."""
        places = self._places(corpus)
        moved: list[tuple[int, bytes]] = []
        lost: list[tuple[bytes]] = []
        for key, first, count in self._database.execute("SELECT key, first, documents FROM units WHERE documents > 0"):
            if any(place < 0 for place in places[first : first + count]):
                lost.append((key,))
            else:
                moved.append((places[first], key))
        self._database.executemany("UPDATE units SET first = ? WHERE key = ?", moved)
        self._database.executemany("DELETE FROM units WHERE key = ?", lost)

    def _places(self, corpus: Corpus) -> array[int]:
        """By the number under which a document was read its place in the corpus; -1 where it is not there."""
        self._ids.flush()
        self._ids.seek(0)
        names = (_short(name) for name, _, _ in read_names(corpus.path()))
        places, place, wanted = array("q"), 0, next(names, None)
        for found in _pieces(self._ids):
            if found == wanted:
                places.append(place)
                place, wanted = place + 1, next(names, None)
            else:
                places.append(-1)
        return places


def id_digest(hasher: Any) -> bytes:
    """What the ids of a unit's documents come to."""
    return bytes(hasher.digest(16))


def _short(document: str) -> bytes:
    return bytes.fromhex(document[4 : 4 + 2 * _ID])


def _pieces(file: Any) -> Iterator[bytes]:
    while block := file.read(_ID << 12):
        for start in range(0, len(block), _ID):
            yield block[start : start + _ID]
