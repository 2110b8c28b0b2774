"""The database as an SQLite file with a write-ahead log.

Nobody may open the database's file by other means within this process: closing it would drop SQLite's locks.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treadle.core.database import BUSY_SECONDS, Database, Reader
from treadle.core.errors import Corrupt, TreadleError, UserError

_BUSY_SECONDS = BUSY_SECONDS

# Deleted content is overwritten at once, so that what is erased does not stay in free pages.
# Pages are kept in up to 32 MB of memory, so that those of a long history are not read again for each question.
_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON", "foreign_keys=ON", "cache_size=-32000")


class SqliteDatabase(Database):
    """One connection to one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place, self.name = str(path), path.name
        self._lock = threading.RLock()
        with self._explained():
            self._connection = self._connect()
        try:
            with self._explained():
                for pragma in _PRAGMAS:
                    self._set(pragma)
            self._check_format()
        except BaseException:
            self._connection.close()
            raise

    @contextmanager
    def guarded(self, *, alone: bool) -> Iterator[None]:
        """As ``Database``, by a lock on a file beside the database's."""
        with self.path.with_name(self.path.name + "-objects.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    def _set(self, pragma: str) -> None:
        """Set a pragma. SQLite does not wait where two processes turn a new file to WAL at once, so this does."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute(f"PRAGMA {pragma}")
            except sqlite3.OperationalError as error:
                if not _busy(error) or time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(0.01)

    @contextmanager
    def transaction(self, *, sync: bool = False) -> Iterator[sqlite3.Cursor]:
        """Everything inside, or nothing. ``sync`` waits until it would survive a loss of power."""
        with self._lock, self._explained():
            cursor = self._connection.cursor()
            try:
                if sync:
                    cursor.execute("PRAGMA synchronous=FULL")
                cursor.execute("BEGIN IMMEDIATE")
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise
            finally:
                if sync:
                    cursor.execute("PRAGMA synchronous=NORMAL")
                cursor.close()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT; ``Corrupt`` when the file is damaged."""
        with self._lock, self._explained():
            return self._connection.execute(sql, parameters).fetchall()

    def script(self, ddl: str) -> None:
        """Create tables and indexes that are not there yet."""
        with self._lock, self._explained():
            self._connection.executescript(ddl)

    def batches(self, reader: Reader, sql: str, size: int) -> Iterator[list[Any]]:
        """The rows of a SELECT. They are decoded the quick way until a text is met that is not UTF-8."""
        assert isinstance(reader, sqlite3.Connection)
        tolerant, done = reader.text_factory, 0
        reader.text_factory = str
        try:
            cursor = reader.execute(sql)
            while rows := cursor.fetchmany(size):
                yield rows
                done += len(rows)
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
            reader.text_factory = tolerant
            cursor = reader.execute(f"{sql} LIMIT -1 OFFSET {done}")
            while rows := cursor.fetchmany(size):
                yield rows
        finally:
            reader.text_factory = tolerant

    def inspect(self, reader: Reader) -> Iterator[tuple[str, str]]:
        """Damage, or an index from which a row was taken: what it hides, a query by kind would not find. Triggers."""
        for (line,) in reader.execute("PRAGMA integrity_check(20)"):
            if line != "ok":
                yield "integrity", " ".join(str(line).split())
        for (name,) in reader.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            yield name, "is a trigger that was put in by hand"

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own that sees one moment, while others go on writing.

        Text that is not UTF-8 comes with its bytes as surrogates, so that a damaged row can be read.
        """
        with self._explained():
            connection = self._connect()
            try:
                connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
                connection.execute("PRAGMA query_only=ON")
                connection.execute("BEGIN")
                yield connection
            finally:
                connection.close()

    def sync(self) -> None:
        """Wait until everything committed so far would survive a loss of power."""
        # SQLite syncs what it moves out of the write-ahead log itself, so only the log can be behind.
        try:
            descriptor = os.open(f"{self.path}-wal", os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def scrub(self, *tables: str) -> None:
        """Rewrite the whole file without its free pages and empty the write-ahead log, so no deleted byte is left.

        ``UserError`` when another process reads the database for so long that the log cannot be emptied.
        """
        with self._lock, self._explained():
            self._connection.execute("VACUUM")
            deadline = time.monotonic() + _BUSY_SECONDS
            while self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"{self.path} is being read by another process, so deleted rows cannot be wiped; "
                        "end it and try again"
                    )
                time.sleep(0.05)

    def close(self) -> None:
        """Close the connection; the write-ahead log is folded in when it was the last one."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise
        except sqlite3.DatabaseError as error:
            raise _explain(self.path, error) from None


def _busy(error: sqlite3.DatabaseError) -> bool:
    """Whether another connection holds what this one wanted."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _explain(path: Path, error: sqlite3.DatabaseError) -> TreadleError:
    """What went wrong, in one line that ends with what to do."""
    code = getattr(error, "sqlite_errorname", "")
    if _busy(error):
        return UserError(f"{path} is held by another process; wait until it is done, or end it")
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return UserError(f"cannot write {path}: {error}; the folder must exist and be writable")
    if code.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return UserError(f"cannot write {path}: {error}; free some space on its disk and try again")
    return Corrupt(f"{path} is damaged: {error}; put back a backup: treadle restore FILE")
