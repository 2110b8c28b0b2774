"""A database file that is drawn from the record and may be thrown away: a cache, never evidence.

It is made anew when it is missing, damaged or of another format. Whoever makes or removes it holds a lock of its own
meanwhile, so that several processes agree on one file; who finds another file in its place goes on with that one.
"""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treadle.core.errors import Corrupt, UserError
from treadle.core.sqlite import SqliteDatabase


class _Connection(SqliteDatabase):
    """A database that may be thrown away: ``Corrupt`` when it is of another format."""

    def __init__(self, path: Path, schema: str, number: int) -> None:
        self._schema, self._number = schema, number
        super().__init__(path)

    def _check_format(self) -> None:
        found = self.query("PRAGMA user_version")[0][0]
        if found == 0 and not self.query("SELECT 1 FROM sqlite_master LIMIT 1"):
            self.script(f"BEGIN IMMEDIATE;{self._schema}PRAGMA user_version = {self._number};COMMIT;")
        elif found != self._number:
            raise Corrupt(f"{self.path} has format {found}")


class CacheFile:
    """Two connections, one that reads while the other writes. Opened at the first use.

    ``schema`` makes its tables; ``number`` is the format, and a file of another one is made anew.
    """

    def __init__(self, path: Path, schema: str, number: int) -> None:
        self.path = path
        self._made_with = (schema, number)
        self._lock = threading.Lock()
        self._opened: tuple[_Connection, _Connection] | None = None
        self._inode = 0
        self._left: list[_Connection] = []  # another thread may be reading in them

    @property
    def reading(self) -> SqliteDatabase:
        """For SELECT."""
        return self._connections()[0]

    @property
    def writing(self) -> SqliteDatabase:
        """For transactions."""
        return self._connections()[1]

    @property
    def inode(self) -> int:
        """Another number is another file."""
        self._connections()
        return self._inode

    def _connections(self) -> tuple[_Connection, _Connection]:
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> tuple[_Connection, _Connection]:
        with self._held():
            if self._present() is None:
                self._remove()  # a log without its file would be taken for the new one's
            try:
                opened = _Connection(self.path, *self._made_with), _Connection(self.path, *self._made_with)
            except Corrupt:
                self._remove()
                opened = _Connection(self.path, *self._made_with), _Connection(self.path, *self._made_with)
            self._inode = self._present() or 0
            return opened

    def exists(self) -> bool:
        """Whether anybody has made it."""
        return self._present() is not None

    def refresh(self) -> None:
        """Let go of a file that somebody has replaced or removed."""
        if self._present() != self._inode:
            self._let_go()

    def discard(self) -> None:
        """Throw the file away, unless somebody else has put another in its place by now."""
        self._let_go()
        with self._held():
            if self._present() == self._inode:
                self._remove()

    def close(self) -> None:
        """Close every connection."""
        self._let_go()
        while self._left:
            self._left.pop().close()

    def _let_go(self) -> None:
        with self._lock:
            self._left.extend(self._opened or ())
            self._opened = None

    def _present(self) -> int | None:
        try:
            return self.path.stat().st_ino
        except FileNotFoundError:
            return None

    @contextmanager
    def _held(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(exist_ok=True)
            lock = self.path.with_suffix(".lock").open("a")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}; the store must be writable") from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def alone(self, *, wait: bool) -> Iterator[bool]:
        """Be the only one that brings the file up to date; False where somebody else is, and this is not to wait. The
        kernel lets go when the holder dies."""
        try:
            self.path.parent.mkdir(exist_ok=True)
            busy = self.path.with_suffix(".busy").open("a")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}; the store must be writable") from None
        with busy:
            try:
                fcntl.flock(busy, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    def _remove(self) -> None:
        for ending in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
