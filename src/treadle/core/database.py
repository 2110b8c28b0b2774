"""The one database: ledger, projections and state, in SQLite with a write-ahead log.

SQL is written by hand and kept to what SQLite and PostgreSQL share. Migrations are numbered, small, and touch projections
and state only, never the ledger's rows.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treadle.core.errors import Corrupt, UserError

FORMAT = 1
_BUSY_MS = 30_000  # milliseconds a writer waits for another one

# Deleted content is overwritten at once, so that what is erased does not stay in free pages.
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=NORMAL",
    "secure_delete=ON",
    "foreign_keys=ON",
    f"busy_timeout={_BUSY_MS}",
)


class Database:
    """One connection, usable from any thread, one transaction at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in _PRAGMAS:
                self._connection.execute(f"PRAGMA {pragma}")
            self._migrate()
        except sqlite3.OperationalError as error:
            raise UserError(f"cannot open {path}: {error}; the folder must exist and be writable") from None
        except sqlite3.DatabaseError as error:
            raise Corrupt(f"{path} is damaged: {error}; put back a backup of it") from None

    def _migrate(self) -> None:
        with self.transaction() as cursor:
            cursor.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
            row = cursor.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
            if row is None:
                cursor.execute("INSERT INTO meta VALUES ('format', ?)", (str(FORMAT),))
            elif row[0] != str(FORMAT):
                raise UserError(
                    f"{self.path} has format {row[0]}, this Treadle reads format {FORMAT}; "
                    "use the Treadle that wrote it, or a newer one"
                )

    @contextmanager
    def transaction(self, *, sync: bool = False) -> Iterator[sqlite3.Cursor]:
        """Everything inside, or nothing. ``sync`` waits until it would survive a loss of power."""
        with self._lock:
            cursor = self._connection.cursor()
            if sync:
                cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("BEGIN IMMEDIATE")
            try:
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
        with self._lock:
            try:
                return self._connection.execute(sql, parameters).fetchall()
            except sqlite3.DatabaseError as error:
                raise Corrupt(f"{self.path} is damaged: {error}; put back a backup of it") from None

    def script(self, ddl: str) -> None:
        """Create tables and indexes that are not there yet."""
        with self._lock:
            self._connection.executescript(ddl)

    def scrub(self) -> None:
        """Rewrite the file without its free pages and empty the write-ahead log, so no deleted byte is left."""
        with self._lock:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the connection; the write-ahead log is folded in when it was the last one."""
        with self._lock:
            self._connection.close()
