"""The journal: the bulk. Interactions, feedback, metric points, as append-only segments of JSON lines.

Each process appends to a segment of its own per stream. A segment is sealed into an artifact, with one ledger row,
when it holds enough rows, when it is old enough, when its writer closes, or when any other process asks; its writer
then goes on in a new one. A reader looks at the open files first and at the sealed segments second, so that a row
which is sealed meanwhile is seen once.

Not covered: rows in a segment that is not sealed yet are protected by the file system alone. Not for use across a fork.
"""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from treadle.core import memory
from treadle.core.artifacts import Builder
from treadle.core.errors import TreadleError, UserError
from treadle.core.identifiers import time_of
from treadle.core.ledger import Fact, Ledger
from treadle.core.segment import (
    OpenSegment,
    Segment,
    files_of,
    header,
    line,
    read_file,
    row_in,
    rows_in,
    rows_of,
    take,
    told,
)
from treadle.core.store import Store

SEAL_ROWS = 5_000
SEAL_BYTES = 64 << 20  # sealing holds all of it in memory
SEAL_SECONDS = 60.0
SYNC_SECONDS = 1.0  # a loss of power costs at most this much
_SKEW = 60_000  # milliseconds by which the clocks of two writers may differ

Rewrite = Callable[[dict[str, Any]], dict[str, Any] | None]

_log = logging.getLogger(__name__)


class Journal:
    """Append rows to streams, read them back with what is sealed, rewrite them for an erasure."""

    def __init__(self, folder: Path, store: Store, ledger: Ledger) -> None:
        self._folder = folder
        self._store = store
        self._ledger = ledger
        self._open: dict[str, OpenSegment] = {}
        self._lock = threading.Lock()
        self._ticker: threading.Thread | None = None
        self._closed = threading.Event()
        self._index = _Index(ledger)

    # -- writing

    def append(self, stream: str, row: dict[str, Any]) -> None:
        """Append one row (it needs an ``id``). Once this returns, the row survives the death of this process."""
        self.append_many(stream, (row,))

    def append_many(self, stream: str, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows in one write, all of them or, where it fails, none."""
        if not all(isinstance(row.get("id"), str) for row in rows):
            raise TreadleError(f"a row of {stream} needs an id that is text")
        if rows:
            self.append_lines(stream, b"".join(map(line, rows)), len(rows))

    def append_lines(self, stream: str, data: bytes, rows: int) -> None:
        """Append rows that are written out already, each with an ``id`` and as `segment.line` would write it."""
        try:
            with self._lock:
                while not self._segment(stream).append(data, rows):
                    self._open.pop(stream).close()
                if self._closed.is_set():  # a late row; the next to ask seals it
                    self._open.pop(stream).close()
        except OSError as error:
            raise UserError(
                f"cannot write {self._folder / stream}: {error.strerror}; free some space or make it writable"
            ) from None
        if self._ticker is None:
            self._start_ticker()

    def _segment(self, stream: str) -> OpenSegment:
        found = self._open.get(stream)
        if found is None:
            found = self._open[stream] = OpenSegment(self._folder / stream, stream)
        return found

    def _start_ticker(self) -> None:
        with self._lock:
            if self._ticker is None and not self._closed.is_set():
                self._ticker = threading.Thread(target=self._tick, name="journal", daemon=True)
                self._ticker.start()

    def _tick(self) -> None:
        while not self._closed.wait(SYNC_SECONDS):
            for stream in list(self._open):
                try:
                    self._care_for(stream)
                except (OSError, TreadleError) as error:  # what is written stays, and is sealed later
                    _log.warning("the journal cannot seal %s now: %s", stream, error)

    def _care_for(self, stream: str) -> None:
        segment = self._open.get(stream)
        if segment is None:
            return
        full = segment.rows >= SEAL_ROWS or segment.size >= SEAL_BYTES
        if full or time.monotonic() - segment.started >= SEAL_SECONDS:
            self._retire(stream)
        elif segment.dirty:
            try:
                segment.sync()
            except ValueError:  # closed meanwhile: another process sealed it
                return

    def _retire(self, stream: str) -> None:
        with self._lock:
            segment = self._open.pop(stream, None)
        if segment is not None:
            segment.close()
            self._seal_file(stream, segment.path)

    def close(self) -> None:
        """Seal what this process has open."""
        self._closed.set()
        if self._ticker is not None:
            self._ticker.join()
        for stream in list(self._open):
            self._retire(stream)

    # -- sealing

    def seal(self, stream: str | None = None, *, older_than: float = 0.0) -> None:
        """Seal every open segment, whoever writes it, or those begun more than ``older_than`` seconds ago."""
        streams = [stream] if stream else [path.name for path in self._streams()]
        before = (time.time() - older_than) * 1000
        for name in streams:
            for path in files_of(self._folder / name):
                if not older_than or (time_of(path.stem) or 0) < before:
                    self._seal_file(name, path)

    def _seal_file(self, stream: str, path: Path) -> None:
        taken = take(path)
        if taken is None:
            return
        try:
            with taken.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # two may come to finish what a third has left
                if not taken.exists():
                    return
                data = file.read()
                data = data[: data.rfind(b"\n") + 1]
                found = told(data)
                if (found["rows"] or found["damaged"]) and taken.stem not in self._index.state(stream)[1]:
                    self._record(stream, data, found, file=taken.stem)
                    del data
                    memory.give_back()  # a server seals for months
                taken.unlink()
        except FileNotFoundError:
            return
        except OSError as error:  # the rows stay where they are
            raise UserError(
                f"cannot seal {taken.name} of {stream}: {error.strerror}; free some space or make the store writable"
            ) from None

    def _record(
        self,
        stream: str,
        data: bytes,
        found: dict[str, Any],
        *,
        file: str | None = None,
        replaces: str | None = None,
    ) -> None:
        with Builder(Segment, self._store) as builder:
            (builder.path / "rows.jsonl").write_bytes(data)
            segment = builder.commit()
        body = {"stream": stream, "segment": segment.digest, "file": file, "replaces": replaces}
        self._ledger.append(Fact("seal", body | found))

    # -- reading

    def sealed(self, stream: str) -> dict[str, dict[str, Any]]:
        """Segments in force, by digest, in the order of sealing; what replaced another stands in its place."""
        return self._index.state(stream)[0]

    def read(self, stream: str, *, newest_first: bool = False, since: str = "") -> Iterator[dict[str, Any]]:
        """Every row of a stream, sealed or not; oldest first, or by segment and row from the newest.

        With ``since`` (ISO 8601, UTC) segments are left out whose rows are all older; other older rows are not.
        """
        loose, sealed = self._parts(stream)
        parts: list[Callable[[], bytes]] = [
            self._reader(stream, digest) for digest, body in sealed.items() if body["last"] >= since
        ]
        parts.extend(self._constant(data) for data in loose)
        for part in reversed(parts) if newest_first else parts:
            rows, _ = rows_in(part())
            yield from reversed(rows) if newest_first else rows

    def count(self, stream: str) -> int:
        """How many rows a stream has, sealed or not."""
        loose, sealed = self._parts(stream)
        return sum(int(body["rows"]) for body in sealed.values()) + sum(len(rows_in(data)[0]) for data in loose)

    def find(self, stream: str, identifier: str) -> dict[str, Any] | None:
        """The latest row with an id, or None. Only segments that were written when the id was made are read."""
        loose, sealed = self._parts(stream)
        for data in reversed(loose):
            row = row_in(data, identifier)
            if row is not None:
                return row
        moment = time_of(identifier)
        for digest, body in reversed(sealed.items()):
            span = body.get("ids")
            if span is None or (moment is not None and span[0] <= moment <= span[1]):
                row = row_in(self._bytes(stream, digest), identifier)
                if row is not None:
                    return row
        return None

    def find_all(self, stream: str, identifier: str) -> list[dict[str, Any]]:
        """Every row with an id, oldest first. Only segments that hold such ids are read."""
        loose, sealed = self._parts(stream)
        moment = time_of(identifier)
        found: list[dict[str, Any]] = []
        for digest, body in sealed.items():
            span = body.get("ids")
            if span is None or (moment is not None and span[0] <= moment <= span[1]):
                found.extend(rows_of(self._bytes(stream, digest), identifier))
        for data in loose:
            found.extend(rows_of(data, identifier))
        return found

    def about(self, stream: str, field: str, identifier: str) -> list[dict[str, Any]]:
        """Every row that names an id in ``field``, oldest first. Only segments that go on after that id are read."""
        loose, sealed = self._parts(stream)
        moment = time_of(identifier) or 0
        found: list[dict[str, Any]] = []
        for digest, body in sealed.items():
            span = body.get("ids")
            if span is None or span[1] + _SKEW >= moment:
                found.extend(rows_of(self._bytes(stream, digest), identifier, field))
        for data in loose:
            found.extend(rows_of(data, identifier, field))
        return sorted(found, key=lambda row: time_of(str(row["id"])) or 0)

    def segment(self, stream: str, digest: str) -> list[dict[str, Any]]:
        """The rows of one sealed segment, or of what replaced it; none when it was erased."""
        return rows_in(self._bytes(stream, digest))[0]

    def count_sealed(self, stream: str, identifier: str, *, before: int) -> int:
        """How many rows with an id are in segments that rows of the ledger before ``before`` sealed."""
        moment, found = time_of(identifier), 0
        for row in self._ledger.rows("seal"):
            span, body = row.body.get("ids"), row.body
            if row.seq >= before:
                break
            within = span is None or (moment is not None and span[0] <= moment <= span[1])
            if within and body["stream"] == stream and not body["replaces"]:
                found += len(rows_of(self._bytes(stream, body["segment"]), identifier))
        return found

    def _parts(self, stream: str) -> tuple[list[bytes], dict[str, dict[str, Any]]]:
        """What is not sealed, and the segments that are; each row in one of them."""
        loose = {path.stem: read_file(path) for path in files_of(self._folder / stream)}
        sealed, done = self._index.state(stream)  # after the files: what vanished meanwhile is in here
        return [loose[name] for name in sorted(loose) if name not in done], sealed

    @staticmethod
    def _constant(data: bytes) -> Callable[[], bytes]:
        return lambda: data

    def _reader(self, stream: str, digest: str) -> Callable[[], bytes]:
        return lambda: self._bytes(stream, digest)

    def _bytes(self, stream: str, digest: str) -> bytes:
        """The verified bytes of a sealed segment, or of what replaced it; nothing when it was erased."""
        while not self._store.has_object(digest):
            replacement = self._index.replacement(stream, digest)
            if replacement is None:
                return b""  # verify tells whether an erasure accounts for it
            digest = replacement
        (entry,) = (each for each in Segment(digest, self._store).entries() if each.path == "rows.jsonl")
        return self._store.read(entry.digest)

    def _streams(self) -> list[Path]:
        return sorted(self._folder.iterdir()) if self._folder.is_dir() else []

    # -- erasing

    def rewrite(self, stream: str, change: Rewrite) -> set[str]:
        """Pass every row through ``change`` (None drops it); returns the segments that are no longer in force.

        A segment in which nothing changes stays as it is. Those that an interrupted rewrite replaced before are
        returned as well, as long as they are there. The caller deletes them once an erasure row names them.
        """
        self.seal(stream)
        for digest in self.sealed(stream):
            rows, damaged = rows_in(self._bytes(stream, digest))
            changed = [change(row) for row in rows]
            if changed == rows and not damaged:  # a line that cannot be read cannot be searched either
                continue
            kept = [row for row in changed if row is not None]
            data = header(stream) + b"".join(map(line, kept))
            self._record(stream, data, told(data), replaces=digest)
        return {digest for digest in self._index.replaced(stream) if self._store.has_object(digest)}


class _Index:
    """The rows about seals, read once and then only what is new."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._seen = 0
        self._segments: dict[str, dict[str, dict[str, Any]]] = {}
        self._files: dict[str, set[str]] = {}
        self._replaced: dict[str, dict[str, str]] = {}

    def state(self, stream: str) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """Segments in force, and the names of the files that were sealed, at one moment."""
        with self._lock:
            self._catch_up()
            return dict(self._segments.get(stream, {})), set(self._files.get(stream, ()))

    def replaced(self, stream: str) -> dict[str, str]:
        """By segment no longer in force, the one in its place."""
        with self._lock:
            self._catch_up()
            return dict(self._replaced.get(stream, {}))

    def replacement(self, stream: str, digest: str) -> str | None:
        """What stands in the place of a segment."""
        return self.replaced(stream).get(digest)

    def _catch_up(self) -> None:
        for row in self._ledger.rows("seal", after=self._seen):
            self._seen = row.seq
            body = row.body
            segments = self._segments.setdefault(body["stream"], {})
            old, new = body["replaces"], body["segment"]
            if body["file"]:
                self._files.setdefault(body["stream"], set()).add(body["file"])
            if old:
                self._replaced.setdefault(body["stream"], {})[old] = new
            if old in segments:
                following = {new if name == old else name: body if name == old else of for name, of in segments.items()}
                segments.clear()
                segments.update(following)
            else:
                segments[new] = body
            if not body["rows"]:
                segments.pop(new, None)
