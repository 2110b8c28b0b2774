"""The one database: ledger, projections and state, in SQLite or, by URL, in PostgreSQL.

SQL is written by hand, one text for both: ``?`` for parameters, and of what SQLite understands only what PostgreSQL
understands as well once the names of types are translated (``INTEGER`` 64 bits, ``REAL`` a double, ``BLOB``; text is
compared byte by byte). ``INSERT ... ON CONFLICT`` replaces and ignores; ``LIKE`` is for digests and lower-case text,
because SQLite's takes capital letters for small ones and PostgreSQL's does not.

What each backend promises beyond this stands in its own module: ``sqlite`` and ``postgresql``.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from treadle.core.errors import UserError

FORMAT = 2  # 2: the ledger's tree has nodes; see `migrations`
BUSY_SECONDS = 30.0  # how long a writer waits for another one


class Lost(UserError):
    """The connection to the database broke. ``written`` is False where nothing was kept, None where that is unknown."""

    def __init__(self, message: str, *, written: bool | None) -> None:
        super().__init__(message)
        self.written = written


class Cursor(Protocol):
    """What a projection or a transaction executes SQL with; ``sqlite3.Cursor`` is one."""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """Run one statement; what is wrong with it may be raised later on, at the latest at the end."""
        ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Cursor:
        """Run one statement once for each of the parameters."""
        ...

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchmany(self, size: int, /) -> list[Any]:
        """The next rows, at most so many."""
        ...

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """The rows that are left, one by one."""
        ...


class Reader(Protocol):
    """What sees one moment of the database; ``sqlite3.Connection`` is one."""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """Run one SELECT; its rows are fetched as they are asked for."""
        ...


class Database(ABC):
    """Usable from any thread, one transaction at a time. Not for use across a fork."""

    place: str  # as messages name it: a path, or a URL without user and password
    name: str  # the short form of it
    format: int = FORMAT  # that of what is stored; an earlier one has to be brought up to date

    @abstractmethod
    def transaction(self, *, sync: bool = False) -> AbstractContextManager[Cursor]:
        """Everything inside, or nothing; others that write wait. ``sync`` waits until it would survive a loss of
        power."""

    @abstractmethod
    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT; ``Corrupt`` when what is stored is damaged."""

    @abstractmethod
    def script(self, ddl: str) -> None:
        """Create tables and indexes that are not there yet."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[Reader]:
        """A connection of its own that sees one moment, while others go on writing."""

    @abstractmethod
    def batches(self, reader: Reader, sql: str, size: int) -> Iterator[list[Any]]:
        """The rows of a SELECT that orders them, many at a time, each one readable or not."""

    @abstractmethod
    def inspect(self, reader: Reader) -> Iterator[tuple[str, str]]:
        """Damage, and what was put in by hand to change or hide rows, as a name and what is wrong with it."""

    @abstractmethod
    def sync(self) -> None:
        """Wait until everything committed so far would survive a loss of power."""

    @abstractmethod
    def scrub(self, *tables: str) -> None:
        """Leave no byte of what was deleted from these tables, or from all; what that covers, the backend says."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def bound(self, seconds: float) -> None:  # noqa: B027
        """From now on wait at most so long for each answer: what says nothing then is ``Lost``, as if the connection
        had broken. Without it a statement may take as long as it takes. A file needs no bound: it has nobody to wait
        for but writers, for `BUSY_SECONDS`."""

    def clock(self) -> float:
        """Seconds since 1970, by a clock that is the same for everybody who writes this database."""
        return time.time()

    @contextmanager
    def held(self, waiting: Callable[[str], object] | None = None) -> Iterator[None]:
        """Hold the project among all machines that write this database; ``waiting`` is told who has it. A file is
        held by the lock in the store's folder already."""
        yield

    @abstractmethod
    def guarded(self, *, alone: bool) -> AbstractContextManager[None]:
        """Put objects where others who write this database put theirs; ``alone`` to be the one who deletes there,
        which waits for those who put, and they for it."""

    def _check_format(self) -> None:
        """Make the table that says the format, and refuse a newer one."""
        self.script("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);")
        rows = self.query("SELECT value FROM meta WHERE name = 'format'")
        if not rows:
            with self.transaction() as cursor:
                cursor.execute("INSERT INTO meta VALUES ('format', ?) ON CONFLICT (name) DO NOTHING", (str(FORMAT),))
            rows = self.query("SELECT value FROM meta WHERE name = 'format'")
        known = {str(number): number for number in range(1, FORMAT + 1)}
        if rows[0][0] not in known:
            raise UserError(
                f"{self.place} has format {rows[0][0]}, this Treadle reads formats up to {FORMAT}; "
                "use the Treadle that wrote it, or a newer one"
            )
        self.format = known[rows[0][0]]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else has it open; ``UserError`` where somebody has. For a file the store's folder has a lock."""
        yield
