"""A segment: one piece of one stream, a header line and one row a line.

    seg-<id>.jsonl           being appended to by the process that made it
    sealing/seg-<id>.jsonl   closed for good, on its way into the store; nobody writes to it any more
    rows.jsonl               in the store: a sealed segment

A segment goes this way only, from one folder to the next. Who looks for rows in the same order misses none.

The header carries a random salt, so that the digest of a segment tells nothing about the texts in it.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from treadle.core.artifacts import Artifact
from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt
from treadle.core.fact import now
from treadle.core.identifiers import new_id, time_of

FORMAT = 1
_SUFFIX = ".jsonl"
_SEALING = "sealing"
_PART = 200  # rows that are parsed in one go, during which no other thread runs


class Segment(Artifact):
    """A sealed piece of one stream: ``rows.jsonl``, a header line and one row a line."""

    kind: ClassVar[str] = "segment"


def header(stream: str) -> bytes:
    """A first line with a fresh salt."""
    return line({"format": FORMAT, "salt": secrets.token_hex(16), "stream": stream, "time": now()})


def line(row: dict[str, Any]) -> bytes:
    """A row as it is written; line breaks inside it are escaped."""
    return canonical_json(row) + b"\n"


def rows_in(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The rows, and how many lines are none.

    A line without its end is no row: its writer died before it could acknowledge it. Other lines that are not JSON are
    what a loss of power left in the last second of a file.
    """
    return _rows(_lines(data), first=True)


def told(data: bytes) -> dict[str, Any]:
    """`spans` of the rows, and how many lines are ``damaged``: a part at a time, for a server that seals answers others
    meanwhile, and rows take several times the memory of their lines."""
    lines, damaged = _lines(data), 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal damaged
        for start in range(0, len(lines), _PART):
            found, lost = _rows(lines[start : start + _PART], first=start == 0)
            damaged += lost
            yield from found

    spanned = spans(rows())
    return spanned | {"damaged": damaged}


def _rows(lines: list[bytes], *, first: bool) -> tuple[list[dict[str, Any]], int]:
    """As `rows_in`, of lines that are a segment's ``first`` or follow on those."""
    found = _at_once(lines)
    if found is None:
        found = [_row(text) for text in lines]
    if first and found and found[0] is not None and "salt" in found[0]:
        if found[0].get("format") != FORMAT:
            raise Corrupt(f"segment of format {found[0].get('format')!r}; this Treadle reads format {FORMAT}")
        del found[0]
    rows = [row for row in found if row is not None]
    return rows, len(found) - len(rows)


def _at_once(lines: list[bytes]) -> list[dict[str, Any] | None] | None:
    """All lines parsed in one go, several times quicker; None where any of them is not one object."""
    try:
        found = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        return None
    whole = len(found) == len(lines) and all(type(row) is dict for row in found)
    return found if whole else None


def rows_at(data: bytes, *, header: bool) -> Iterator[tuple[dict[str, Any] | None, int, int]]:
    """Each line with its place in ``data``, first byte and length; None for what is no row. ``header``: it begins with
    the segment's first line."""
    start = 0
    for index, text in enumerate(data[: data.rfind(b"\n") + 1].splitlines(keepends=True)):
        row = _row(text)
        yield (None if row is None or (header and index == 0 and "salt" in row) else row), start, len(text)
        start += len(text)


def row_in(data: bytes, identifier: str) -> dict[str, Any] | None:
    """The last row with an id, without reading the others."""
    wanted = canonical_json(identifier)
    if wanted not in data:
        return None
    for text in reversed(_lines(data)):
        if wanted in text:
            row = _row(text)
            if row is not None and row.get("id") == identifier:
                return row
    return None


def rows_of(data: bytes, identifier: str, field: str = "id") -> list[dict[str, Any]]:
    """Every row with an id in ``field``, in order, without reading the others."""
    wanted = canonical_json(identifier)
    found, end = [], data.rfind(b"\n")
    place = data.find(wanted, 0, max(end, 0))
    while place >= 0:
        stop = data.index(b"\n", place)
        row = _row(data[data.rfind(b"\n", 0, place) + 1 : stop])
        if row is not None and row.get(field) == identifier:
            found.append(row)
        place = data.find(wanted, stop, end)
    return found


def spans(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What the ledger says of the rows in a segment, so that most of them need not be read to find one.

    ``first`` and ``last`` are the rows' own times; ``ids`` the milliseconds in their ids, None when an id has none.
    """
    times: list[str] = []
    identifiers: set[str] = set()
    for row in rows:
        times.append(str(row.get("time", "")))
        identifiers.add(str(row.get("id", "")))
    moments = [time_of(identifier) for identifier in identifiers]
    known = [moment for moment in moments if moment is not None]
    return {
        "rows": len(times),
        "first": min(times, default=""),
        "last": max(times, default=""),
        "ids": [min(known), max(known)] if known and len(known) == len(moments) else None,
    }


def _lines(data: bytes) -> list[bytes]:
    return data[: data.rfind(b"\n") + 1].splitlines()


def _row(text: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


class OpenSegment:
    """The segment that this process appends to. The lock on its file says who may touch it."""

    def __init__(self, folder: Path, stream: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{new_id('seg')}{_SUFFIX}"
        self.rows = 0
        self.started = time.monotonic()
        self.dirty = False
        self._file = self.path.open("ab", buffering=0)
        self._inode = os.fstat(self._file.fileno()).st_ino
        self._size = 0
        try:
            self._write(header(stream))
        except OSError:  # a full disk: leave nothing
            self._file.close()
            self.path.unlink()
            raise

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    def append(self, data: bytes, rows: int = 1) -> bool:
        """Write whole lines; False, and nothing written, when another process has taken the file to seal it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not is_at(self.path, self._inode):  # it is being sealed, and that may take a while
                return False
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            if not is_at(self.path, self._inode):
                return False
            self._write(data)
            self.rows += rows
            self.dirty = True
            return True
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _write(self, data: bytes) -> None:
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._file.truncate(self._size)  # a full disk leaves no half line before the next one
            raise
        self._size += len(data)

    def sync(self) -> None:
        """Wait for the disk, on a descriptor of its own so that appending goes on meanwhile."""
        self.dirty = False
        descriptor = os.dup(self._file.fileno())
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the file; whoever comes next may seal it."""
        self._file.close()


def is_at(path: Path, inode: int) -> bool:
    """Whether a path still leads to that file."""
    try:
        return path.stat().st_ino == inode
    except FileNotFoundError:
        return False


def take(path: Path) -> Path | None:
    """Close an open segment for good, whoever writes it; None when somebody else was first."""
    if path.parent.name == _SEALING:
        return path
    taken = _taken(path)
    taken.parent.mkdir(exist_ok=True)
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not is_at(path, os.fstat(file.fileno()).st_ino):
                return None
            path.rename(taken)
    except FileNotFoundError:
        return None
    return taken


def files_of(folder: Path) -> list[Path]:
    """The segments of a stream that are not in the store yet: the open ones, then those on their way."""
    opened = sorted(folder.glob(f"seg-*{_SUFFIX}"))
    return opened + sorted((folder / _SEALING).glob(f"seg-*{_SUFFIX}"))


def read_file(path: Path, start: int = 0, length: int = -1) -> bytes:
    """The bytes of a segment's file, wherever it has got to; nothing when it is in the store meanwhile."""
    for each in (path, _taken(path)):
        try:
            with each.open("rb") as file:
                file.seek(start)
                return file.read(length)
        except FileNotFoundError:
            continue
    return b""


def _taken(path: Path) -> Path:
    return path.parent / _SEALING / path.name
