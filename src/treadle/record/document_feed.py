"""How artifacts come into the index of documents, and leave it when they are erased.

The ledger's rows about artifacts are followed in order, many in one transaction; one process at a time does it, and may
die at any moment.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from treadle.core.errors import Corrupt
from treadle.core.workspace import Workspace
from treadle.record.cache_file import CacheFile
from treadle.record.document_file import NewSegment, add_segment, check, list_code
from treadle.record.document_lists import ID, RECENT, ListReader, Recent
from treadle.record.document_records import records, streamed

_RECORDS = 1_000_000  # taken in at a time
_MANY = 100_000  # ids; what a list changed by beyond that is not held in memory record by record


@dataclass
class _Batch:
    """What one transaction takes in."""

    after: int
    seen: int
    digest: str
    first: int  # the number of the first new list
    lists: dict[str, tuple[int, int]] = field(default_factory=dict)  # by name: number, base
    holdings: list[tuple[str, str, int, int]] = field(default_factory=list)
    unread: list[tuple[str, str, int]] = field(default_factory=list)
    read: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    small: list[bytes] = field(default_factory=list)
    large: list[Iterator[bytes]] = field(default_factory=list)

    def add(self, ids: bytes, number: int, *, lost: bool = False) -> None:
        """Documents that a list gained, or lost."""
        self.count += len(ids) // ID
        if len(ids) > _MANY * ID:
            self.large.append(streamed(ids, number, lost=lost))
        else:
            self.small += records(ids, number, lost=lost)

    def segment(self) -> NewSegment:
        """What all lists of the batch gained and lost."""
        small = iter([b"".join(sorted(self.small))])
        return NewSegment(self.first, self.first + len(self.lists) - 1, self.count, [small, *self.large])


class DocumentFeed:
    """Brings an index up to the ledger."""

    def __init__(self, workspace: Workspace, file: CacheFile, reader: ListReader) -> None:
        self._store, self._ledger, self._keys = workspace.store, workspace.ledger, workspace.keys
        self._file = file
        self._reader = reader

    def catch_up(self, seconds: float | None) -> bool:
        """Take in what is new, for about so many seconds; True when nothing is left."""
        self._file.refresh()
        if self._fresh():
            return True
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        with self._file.alone(wait=seconds is None) as mine:
            if not mine:
                return False
            self._check_history()
            self._let_go()
            recent = self._recent()
            while (batch := self._read(recent, deadline)) is not None:
                self._write(batch)
                if time.monotonic() > deadline:
                    return self._fresh()
        return True

    def scrub(self) -> None:
        """Forget what was erased."""
        with self._file.alone(wait=True):
            self._let_go(whatever=True)

    def _fresh(self) -> bool:
        """Whether there is nothing to do."""
        ((seen, erased, unread),) = self._file.reading.query(
            "SELECT seen, erased, (SELECT count(*) FROM unread) FROM progress"
        )
        return not unread and (self._last("artifact"), self._last("erasure")) == (seen, erased)

    def _last(self, kind: str) -> int:
        row = self._ledger.last(kind)
        return row.seq if row else 0

    def _check_history(self) -> None:
        """``Corrupt`` when the index was made from another history: an older copy of the project was put back."""
        ((seen, digest),) = self._file.writing.query("SELECT seen, digest FROM progress")
        row = next(iter(self._ledger.rows("artifact", after=seen - 1)), None) if seen else None
        if seen and (row is None or row.seq != seen or row.body["digest"] != digest):
            raise Corrupt(f"{self._file.path} belongs to another history")

    def _let_go(self, *, whatever: bool = False) -> None:
        """Take out what was erased since the last time. Lists are kept as changes of each other, so when one of them
        is gone all is made anew."""
        last = self._last("erasure")
        if not whatever and self._file.writing.query("SELECT erased FROM progress") == [(last,)]:
            return
        names = self._file.writing.query("SELECT object FROM lists")
        if not all(self._store.has_object(name) for (name,) in names):
            self._file.discard()
        held = self._file.writing.query("SELECT DISTINCT digest FROM holdings UNION SELECT digest FROM unread")
        erased = self._erased()
        gone = [row for row in held if row[0] in erased and not self._store.has_object(row[0])]
        with self._file.writing.transaction() as cursor:
            cursor.executemany("DELETE FROM holdings WHERE digest = ?", gone)
            cursor.executemany("DELETE FROM unread WHERE digest = ?", gone)
            cursor.execute("UPDATE progress SET erased = ?", (last,))
            if gone:  # another name, for whoever knows of them
                cursor.execute("UPDATE progress SET made = randomblob(16)")

    def _recent(self) -> Recent:
        recent = Recent(self._reader)
        sql = "SELECT number, object FROM lists ORDER BY number DESC LIMIT ?"
        for number, name in reversed(self._file.writing.query(sql, (RECENT,))):
            recent.remember(number, name)
        return recent

    # -- taking in

    def _read(self, recent: Recent, deadline: float) -> _Batch | None:
        """What the next transaction takes in; None when there is nothing."""
        ((seen, digest, last),) = self._file.writing.query(
            "SELECT seen, digest, (SELECT count(*) FROM lists) FROM progress"
        )
        batch = _Batch(seen, seen, digest, last + 1)
        for again in self._file.writing.query("SELECT digest, kind, seq FROM unread"):
            if self._take(batch, recent, *again):
                batch.read.append(again[:2])
        for row in self._ledger.rows("artifact", after=seen):
            batch.seen, batch.digest = row.seq, row.body["digest"]
            named = (row.body["digest"], row.body["kind"], row.seq)
            if row.body["documents"] and not self._take(batch, recent, *named):
                batch.unread.append(named)
            if batch.count >= _RECORDS or time.monotonic() > deadline:
                break
        return batch if batch.seen > seen or batch.read else None

    def _take(self, batch: _Batch, recent: Recent, digest: str, kind: str, seq: int) -> bool:
        """Take an artifact in; False where its list cannot be read now. One that was erased is left out."""
        if not self._store.has_object(digest):
            return digest in self._erased()  # another one is missing here now, and may be pulled
        try:
            name = self._reader.of_artifact(digest)
            number = self._number(batch, name)
            if number is None:
                ids = self._reader.read(name)
                number = batch.first + len(batch.lists)
                change = recent.change(ids)
                batch.lists[name] = (number, change.base)
                batch.add(change.gained, number)
                batch.add(change.lost, number, lost=True)
                recent.remember(number, name)
        except Corrupt:
            return False
        if number:
            batch.holdings.append((digest, kind, number, seq))
        return True

    def _erased(self) -> set[str]:
        return {name for row in self._ledger.rows("erasure") for name in row.body.get("objects", ())}

    def _number(self, batch: _Batch, name: str) -> int | None:
        """The number of a list; 0 where there is no list, None where it is new."""
        if not name:
            return 0
        if name in batch.lists:
            return batch.lists[name][0]
        rows = self._file.writing.query("SELECT number FROM lists WHERE object = ?", (name,))
        return rows[0][0] if rows else None

    def _write(self, batch: _Batch) -> None:
        lists = [
            (number, name, base, list_code(self._keys, number, name, base))
            for name, (number, base) in batch.lists.items()
        ]
        with self._file.writing.transaction() as cursor:
            if cursor.execute("SELECT seen FROM progress").fetchone() != (batch.after,):
                raise Corrupt(f"{self._file.path} was written by two at a time")
            cursor.executemany("INSERT INTO lists VALUES (?, ?, ?, ?)", lists)
            cursor.executemany("INSERT OR IGNORE INTO holdings VALUES (?, ?, ?, ?)", batch.holdings)
            cursor.executemany("INSERT OR IGNORE INTO unread VALUES (?, ?, ?)", batch.unread)
            cursor.executemany("DELETE FROM unread WHERE (digest, kind) = (?, ?)", batch.read)
            if batch.count:
                add_segment(cursor, batch.segment(), self._keys)
            cursor.execute("UPDATE progress SET seen = ?, digest = ?", (batch.seen, batch.digest))
        if batch.count > _MANY:  # the log has grown by all that was merged
            self._file.writing.query("PRAGMA wal_checkpoint(TRUNCATE)")

    # -- checking

    def check(self) -> None:
        """``Corrupt`` unless the index holds every list of every artifact that there is, as it was written."""
        check(self._file.reading, self._keys)
        held = set(self._file.reading.query("SELECT digest, kind, object FROM holdings JOIN lists ON number = list"))
        unread = set(self._file.reading.query("SELECT digest, kind FROM unread"))
        for row in self._ledger.rows("artifact"):
            digest, kind = row.body["digest"], row.body["kind"]
            if row.body["documents"] and (digest, kind) not in unread and self._store.has_object(digest):
                name = self._reader.of_artifact(digest)
                if name and (digest, kind, name) not in held:
                    raise Corrupt(f"{self._file.path} does not know what {digest} was made from")
