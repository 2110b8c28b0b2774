"""How the journal's rows come into the interaction index, and leave it again.

The ledger's rows about seals are followed in order, and a source is kept for each segment: first a file that is
appended to, then the sealed segment with the same bytes, then what an erasure put in its place. Each piece of work is
one transaction that reads the journal inside it, so several processes can share the work and any of them may die.
The newest segments come first.
"""

from __future__ import annotations

import json
import logging
import math
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from treadle.core.errors import Corrupt
from treadle.core.segment import Segment, files_of, read_file, rows_at
from treadle.core.workspace import Workspace
from treadle.record.cache_file import CacheFile
from treadle.record.index_rows import STREAMS, IndexRows, Placed
from treadle.record.recorder import INTERACTIONS

_PIECE = 5_000  # rows held in memory
_SOURCE = "SELECT id, stream, file, segment, expected, read, start FROM sources WHERE"

_log = logging.getLogger(__name__)


class Source(NamedTuple):
    """Where rows lie: ``file`` while it is not sealed, then ``segment``. ``start`` is how far it was read (bytes)."""

    id: int
    stream: str
    file: str | None
    segment: str | None
    expected: int
    read: int
    start: int


class Feed:
    """Brings an index up to the journal."""

    def __init__(self, workspace: Workspace, file: CacheFile) -> None:
        self._folder = workspace.root / "journal"
        self._store, self._ledger = workspace.store, workspace.ledger
        self._file = file
        self._broken: set[str] = set()
        self._seen: object = None

    def catch_up(self, seconds: float | None) -> bool:
        """Read what is new, for about so many seconds; True when nothing is left."""
        self._file.refresh()
        state = self._state()
        if state == self._seen:
            return True
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._check()
        more = True
        while more:
            with self._file.writing.transaction() as cursor:
                more = _Piece(cursor).follow(self)
            if more and time.monotonic() > deadline:
                return False
        self._seen = state
        return True

    @property
    def whole(self) -> bool:
        """Whether every segment could be read, as far as this process knows."""
        return not self._broken

    def waiting(self) -> int:
        """Rows of interactions in sealed segments that are not read yet."""
        sql = "SELECT coalesce(sum(expected - read), 0) FROM sources WHERE done = 0 AND stream = ? AND segment NOTNULL"
        return max(0, int(self._file.reading.query(sql, (INTERACTIONS,))[0][0]))

    def _state(self) -> object:
        """Changes with the journal."""
        sizes = [(path.name, _size(path)) for _, path in self.files()]
        last = self._ledger.last("seal")
        return self._file.inode, last.seq if last else 0, sizes

    def _check(self) -> None:
        """``Corrupt`` when the index was made from another history: an older copy of the project was put back."""
        seen, segment = self._file.writing.query("SELECT seen, segment FROM progress")[0]
        if seen:
            row = next(iter(self._ledger.rows("seal", after=seen - 1)), None)
            if row is None or row.seq != seen or row.body["segment"] != segment:
                raise Corrupt(f"{self._file.path} belongs to another history")

    def files(self) -> list[tuple[str, Path]]:
        """Segments that are not sealed yet, by stream; one that moves meanwhile is there once."""
        found = {path.stem: (stream, path) for stream in STREAMS for path in files_of(self._folder / stream)}
        return list(found.values())

    def seals(self, after: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows of the ledger about seals, of every stream."""
        return ((row.seq, row.body) for row in self._ledger.rows("seal", after=after))

    def sealed(self, segment: str) -> bytes | None:
        """The verified bytes of a segment; empty when it was erased, None when it is damaged."""
        if segment in self._broken:
            return None
        if not self._store.has_object(segment):
            return b""
        try:
            with Segment(segment, self._store).open("rows.jsonl") as file:
                return file.read()
        except Corrupt as error:
            if not self._store.has_object(segment):  # erased just now
                return b""
            self._broken.add(segment)
            _log.warning("rows are missing from the index: %s", error)
            return None

    def broken(self) -> str:
        """Segments that cannot be read in this process, as a JSON list."""
        return json.dumps(sorted(self._broken))


class _Piece:
    """One transaction's work."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor
        self._into = IndexRows(cursor)

    def follow(self, feed: Feed) -> bool:
        """What was appended, the seals, and one segment; True when there may be more."""
        tails = [(stream, path, *self._tail(stream, path)) for stream, path in feed.files()]
        self._register(feed)  # after the files: what was sealed meanwhile is known by now
        for stream, path, source, data in tails:
            if not self._rows("SELECT 1 FROM sources WHERE file = ? AND segment NOTNULL", path.stem):
                self._append(stream, path.stem, source, data)
        sql = (
            f"{_SOURCE} done = 0 AND segment NOTNULL AND segment NOT IN (SELECT value FROM json_each(?)) "
            "ORDER BY id DESC LIMIT 1"
        )
        pending = self._rows(sql, feed.broken())
        if pending:
            self._finish(feed, Source(*pending[0]))
        return bool(pending)

    # -- sources

    def _tail(self, stream: str, path: Path) -> tuple[Source | None, bytes]:
        """What a file holds beyond what was read of it."""
        found = self._rows(f"{_SOURCE} file = ?", path.stem)
        source = Source(*found[0]) if found else None
        return source, read_file(path, source.start if source else 0)

    def _append(self, stream: str, name: str, source: Source | None, data: bytes) -> None:
        if not data:
            return
        if source is None:
            self._cursor.execute("INSERT INTO sources (stream, file) VALUES (?, ?)", (stream, name))
            source = Source(self._cursor.lastrowid or 0, stream, name, None, 0, 0, 0)
        self._take(source, data)

    def _register(self, feed: Feed) -> None:
        """Note what was sealed and what was replaced since the last time."""
        seen, segment = self._rows("SELECT seen, segment FROM progress")[0]
        for seq, body in feed.seals(after=seen):
            seen, segment = seq, body["segment"]
            if body["stream"] not in STREAMS:
                continue
            values = (segment, body["rows"], int(not body["rows"] and not body["replaces"]))
            if body["replaces"]:  # read it whole again
                sql = "UPDATE sources SET segment = ?, expected = ?, done = ?, start = 0 WHERE segment = ?"
                self._cursor.execute(sql, (*values, body["replaces"]))
            else:  # the same bytes, so what was read of the file counts
                sql = "UPDATE sources SET segment = ?, expected = ?, done = ? OR read = ? WHERE file = ?"
                self._cursor.execute(sql, (*values, body["rows"], body["file"]))
            if not self._cursor.rowcount:
                sql = "INSERT INTO sources (segment, expected, done, stream, file) VALUES (?, ?, ?, ?, ?)"
                self._cursor.execute(sql, (*values, body["stream"], body["file"]))
        self._cursor.execute("UPDATE progress SET seen = ?, segment = ?", (seen, segment))

    def _finish(self, feed: Feed, source: Source) -> None:
        """Read the rest of a sealed segment."""
        data = feed.sealed(source.segment or "") if source.expected else b""
        if data is None:
            return
        read = source.read
        if source.start:
            read += self._take(source, data[source.start :])
        if read != source.expected or not source.start:  # new, replaced, or not what was in the file before
            self._into.remove(source.id)
            self._take(source._replace(start=0, read=0), data)
        self._cursor.execute("UPDATE sources SET done = 1 WHERE id = ?", (source.id,))

    def _take(self, source: Source, data: bytes) -> int:
        """Take in the rows of a source from where it was read to; returns how many there were."""
        count = end = 0
        pending: list[Placed] = []
        for row, start, length in rows_at(data, header=source.start == 0):
            end = source.start + start + length
            count += row is not None
            if row is not None and isinstance(row.get("id"), str):
                pending.append((row, source.start + start, length))
            if len(pending) == _PIECE:
                self._into.take(source.stream, source.id, pending)
                pending.clear()
        self._into.take(source.stream, source.id, pending)
        sql = "UPDATE sources SET start = max(?, ?), read = ? WHERE id = ?"
        self._cursor.execute(sql, (source.start, end, source.read + count, source.id))
        return count

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._cursor.execute(sql, values).fetchall()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # sealed meanwhile
        return 0
