"""Cursors of a PostgreSQL server that take the SQL that SQLite takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import psycopg

from treadle.core.database import Cursor
from treadle.core.postgresql_server import Connection, statement

_PAGE = 2_000  # rows fetched at a time from a snapshot


class PostgresqlCursor:
    """A cursor that takes the SQL that SQLite takes."""

    def __init__(self, cursor: psycopg.Cursor[tuple[Any, ...]] | psycopg.ServerCursor[tuple[Any, ...]]) -> None:
        self._cursor = cursor

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> PostgresqlCursor:
        """Run one statement."""
        self._cursor.execute(statement(sql), parameters)
        return self

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> PostgresqlCursor:
        """Run one statement once for each of the parameters."""
        self._cursor.executemany(statement(sql), parameters)
        return self

    def fetchone(self) -> Any:
        """The next row, or None."""
        return self._cursor.fetchone()

    def fetchmany(self, size: int, /) -> list[Any]:
        """The next rows, at most so many."""
        return self._cursor.fetchmany(size)

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)


class SnapshotReader:
    """Executes each SELECT with a cursor of the server, so that its rows need not be held in memory."""

    def __init__(self, connection: Connection, closing: ExitStack) -> None:
        self._connection = connection
        self._closing = closing
        self._numbers = itertools.count()

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Cursor:
        """Run one SELECT."""
        cursor = self._connection.cursor(name=f"rows_{next(self._numbers)}")
        self._closing.callback(cursor.close)
        cursor.itersize = _PAGE
        return PostgresqlCursor(cursor).execute(sql, parameters)
