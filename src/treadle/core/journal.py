"""The journal: the bulk. Interactions, feedback, metric points, as append-only segments of JSON lines.

Each process appends to a segment of its own per stream. A segment is sealed into an artifact, with one ledger row, when it holds
enough rows, when it is old enough, when its writer closes, or when any other process asks; the lock on the file decides who does
it. Its first line carries a random salt, so that the digest of a segment tells nothing about the texts in it.

Not covered: rows in a segment that is not sealed yet are protected by the file system alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from treadle.core.artifacts import Artifact, Builder
from treadle.core.digest import canonical_json
from treadle.core.identifiers import new_id
from treadle.core.ledger import Fact, Ledger, now
from treadle.core.store import Store

FORMAT = 1
SEAL_ROWS = 5_000
SEAL_SECONDS = 60.0
SYNC_SECONDS = 1.0  # a loss of power costs at most this much

Rewrite = Callable[[dict[str, Any]], dict[str, Any] | None]


class Segment(Artifact):
    """A sealed piece of one stream: ``rows.jsonl``, a header line and one row a line."""

    kind: ClassVar[str] = "segment"


@dataclass
class _Open:
    """The segment this process is appending to."""

    path: Path
    file: BinaryIO
    inode: int
    rows: int
    started: float
    dirty: bool = False


class Journal:
    """Append rows to streams, read them back with what is sealed, rewrite them for an erasure."""

    def __init__(self, folder: Path, store: Store, ledger: Ledger) -> None:
        self._folder = folder
        self._store = store
        self._ledger = ledger
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()
        self._ticker: threading.Thread | None = None
        self._closed = threading.Event()

    # -- writing

    def append(self, stream: str, row: dict[str, Any]) -> None:
        """Append one row (it needs an ``id``). Once this returns, the row survives the death of this process."""
        data = canonical_json(row) + b"\n"
        with self._lock:
            segment = self._segment(stream)
            fcntl.flock(segment.file, fcntl.LOCK_EX)
            try:
                if not _is_at(segment.path, segment.inode):  # another process sealed it
                    fcntl.flock(segment.file, fcntl.LOCK_UN)
                    segment.file.close()
                    del self._open[stream]
                    segment = self._segment(stream)
                    fcntl.flock(segment.file, fcntl.LOCK_EX)
                segment.file.write(data)
                segment.rows += 1
                segment.dirty = True
            finally:
                fcntl.flock(segment.file, fcntl.LOCK_UN)
        self._start_ticker()

    def _segment(self, stream: str) -> _Open:
        found = self._open.get(stream)
        if found is None:
            folder = self._folder / stream
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{new_id('seg')}.jsonl"
            file = path.open("ab", buffering=0)
            header = {"format": FORMAT, "salt": secrets.token_hex(16), "stream": stream, "time": now()}
            file.write(canonical_json(header) + b"\n")
            found = _Open(path, file, os.fstat(file.fileno()).st_ino, 0, time.monotonic())
            self._open[stream] = found
        return found

    def _start_ticker(self) -> None:
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, name="journal", daemon=True)
            self._ticker.start()

    def _tick(self) -> None:
        while not self._closed.wait(SYNC_SECONDS):
            for stream in list(self._open):
                self._sync(stream)
                segment = self._open.get(stream)
                if segment and (
                    segment.rows >= SEAL_ROWS or time.monotonic() - segment.started >= SEAL_SECONDS
                ):
                    self._retire(stream)

    def _sync(self, stream: str) -> None:
        with self._lock:
            segment = self._open.get(stream)
            if segment is None or not segment.dirty:
                return
            segment.dirty = False
            descriptor = os.dup(
                segment.file.fileno()
            )  # so that appending goes on while the disk is waited for
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def _retire(self, stream: str) -> None:
        with self._lock:
            segment = self._open.pop(stream, None)
        if segment is not None:
            segment.file.close()
            self._seal_file(stream, segment.path)

    def close(self) -> None:
        """Seal what this process has open."""
        self._closed.set()
        if self._ticker is not None:
            self._ticker.join()
        for stream in list(self._open):
            self._retire(stream)

    # -- sealing

    def seal(self, stream: str | None = None) -> None:
        """Seal every open segment, whoever writes it; writers go on in a new one."""
        streams = [stream] if stream else [path.name for path in self._streams()]
        for name in streams:
            for path in sorted((self._folder / name).glob("*.jsonl")):
                self._seal_file(name, path)

    def _seal_file(self, stream: str, path: Path) -> None:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(path, os.fstat(file.fileno()).st_ino):
                return  # somebody else sealed it while we waited
            data = file.read()
            lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
            if len(lines) > 1:
                self._record(stream, lines, replaces=None)
            path.unlink()

    def _record(self, stream: str, lines: list[bytes], replaces: str | None) -> str:
        with Builder(Segment, self._store) as builder:
            (builder.path / "rows.jsonl").write_bytes(b"".join(lines))
            segment = builder.commit()
        sealed = self.sealed(stream)
        if segment.digest not in sealed:  # else: killed between the row and the removal of the file
            ids = [str(json.loads(line)["id"]) for line in lines[1:]]
            times = [str(json.loads(line).get("time", "")) for line in lines[1:]]
            body = {
                "stream": stream,
                "segment": segment.digest,
                "rows": len(ids),
                "first": min(times, default=""),
                "last": max(times, default=""),
                "replaces": replaces,
            }
            self._ledger.append(Fact("seal", body))
        return segment.digest

    # -- reading

    def sealed(self, stream: str) -> dict[str, dict[str, Any]]:
        """Segments in force, by digest, in the order of sealing; those that were replaced are left out."""
        found: dict[str, dict[str, Any]] = {}
        for row in self._ledger.rows("seal"):
            if row.body["stream"] == stream:
                if row.body["replaces"]:
                    found.pop(row.body["replaces"], None)
                if row.body["rows"]:
                    found[row.body["segment"]] = row.body
        return found

    def read(self, stream: str, *, newest_first: bool = False) -> Iterator[dict[str, Any]]:
        """Every row of a stream, sealed or not; oldest first, or by segment and row from the newest."""
        parts: list[Callable[[], list[dict[str, Any]]]] = []
        for digest in self.sealed(stream):
            parts.append(lambda digest=digest: self._rows_of(digest))  # type: ignore[misc]
        for path in sorted((self._folder / stream).glob("*.jsonl")):
            parts.append(lambda path=path: _rows_in(path))  # type: ignore[misc]
        for part in reversed(parts) if newest_first else parts:
            rows = part()
            yield from reversed(rows) if newest_first else rows

    def find(self, stream: str, identifier: str) -> dict[str, Any] | None:
        """The latest row with an id, or None."""
        for row in self.read(stream, newest_first=True):
            if row["id"] == identifier:
                return row
        return None

    def _rows_of(self, digest: str) -> list[dict[str, Any]]:
        if not self._store.has_object(digest):
            return []  # erased; verify accounts for it
        return _rows_in(Segment(digest, self._store).path("rows.jsonl"))

    def _streams(self) -> list[Path]:
        return sorted(self._folder.iterdir()) if self._folder.is_dir() else []

    # -- erasing

    def rewrite(self, stream: str, change: Rewrite) -> set[str]:
        """Pass every row through ``change`` (None drops it); returns the segments that are no longer in force.

        A segment in which nothing changes stays as it is. The caller deletes the returned ones once an erasure row names them.
        """
        self.seal(stream)
        replaced = set()
        for digest in list(self.sealed(stream)):
            rows = self._rows_of(digest)
            changed = [change(row) for row in rows]
            if changed == rows:
                continue
            header = {"format": FORMAT, "salt": secrets.token_hex(16), "stream": stream, "time": now()}
            kept = [row for row in changed if row is not None]
            self._record(stream, [canonical_json(row) + b"\n" for row in (header, *kept)], replaces=digest)
            replaced.add(digest)
        return replaced


def _is_at(path: Path, inode: int) -> bool:
    try:
        return path.stat().st_ino == inode
    except FileNotFoundError:
        return False


def _rows_in(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    return [json.loads(line) for line in lines[1:]]
