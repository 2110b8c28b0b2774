"""Fixtures over a record on disk."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest

from postgresql_server import Server
from treadle.core.ledger import Projection
from treadle.core.postgresql_server import statement
from treadle.core.workspace import Workspace

WRITER = Path(__file__).with_name("writer.py")


@dataclass(frozen=True)
class Place:
    """Where a record lies: its store's folder, and the URL of its database where that is on a server."""

    root: Path
    database: str | None = None
    server: Server | None = None

    def open(self, projections: Sequence[Projection] = ()) -> Workspace:
        """The record, as a process of its own would open it."""
        return Workspace(self.root, self.database, projections)

    def writer(self, what: str, *arguments: object) -> Writer:
        """Another process that writes to it."""
        return Writer(what, self.root, *arguments, database=self.database)

    def holds(self, *needles: bytes) -> bool:
        """Whether a file of the database, other than a server's write-ahead log, has one of these bytes in it."""
        files = list(self.root.glob("treadle.db*"))
        if self.server is not None:
            self.server.execute("CHECKPOINT")
            files = [path for path in (self.server.data / "base").rglob("*") if path.is_file()]
        return any(needle in path.read_bytes() for path in files for needle in needles)

    def connect(self) -> Raw:
        """The database, open to the vandal."""
        if self.database:
            return Raw(psycopg.connect(self.database, autocommit=True))
        return Raw(sqlite3.connect(self.root / "treadle.db", isolation_level=None))

    def raw(self) -> closing[Raw]:
        """The same, for a ``with`` block."""
        return closing(self.connect())


class Raw:
    """Executes SQL on either database."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        """Run one statement; the cursor with its rows."""
        if isinstance(self._connection, psycopg.Connection):
            return self._connection.execute(statement(sql), parameters)
        return self._connection.execute(sql, parameters)

    def close(self) -> None:
        """Close it."""
        self._connection.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    """Where nothing was recorded yet: SQLite's file in the store, and a schema of its own on a real server."""
    if request.param == "sqlite":
        return Place(tmp_path / "store")
    server: Server = request.getfixturevalue("postgresql")
    return Place(tmp_path / "store", server.schema(), server)


@pytest.fixture
def workspace(place: Place) -> Iterator[Workspace]:
    """An empty record."""
    with place.open() as opened:
        yield opened


class Writer:
    """A process that writes to a record and prints what was acknowledged, a line each."""

    def __init__(self, *arguments: object, database: str | None = None) -> None:
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by _close)
        self._error = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by _close)
        command = [sys.executable, str(WRITER), *map(str, arguments)]
        environment = {**os.environ, "WRITER_DATABASE": database or ""}
        self._process = subprocess.Popen(command, stdout=self._out, stderr=self._error, env=environment)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def lines(self) -> list[str]:
        """What was acknowledged so far; a line that was cut off was acknowledged to nobody."""
        text = _whole(self._out)
        return text[: text.rfind("\n") + 1].splitlines()

    def first(self) -> str:
        """The first line, waited for."""
        while not self.lines():
            assert self.running, self._said()
            time.sleep(0.002)
        return self.lines()[0]

    def kill(self) -> list[str]:
        """End it at once, as the kernel does when memory is short; what was acknowledged."""
        self._process.kill()
        self._process.wait(60)
        return self._close()

    def finish(self) -> list[str]:
        """Wait for its end; fails with what it said on stderr when it did not end well."""
        self._process.wait(120)
        said = self._said()
        lines = self._close()
        assert self._process.returncode == 0, said
        return lines

    def _said(self) -> str:
        return _whole(self._error)

    def _close(self) -> list[str]:
        lines = self.lines()
        self._out.close()
        self._error.close()
        return lines


def _whole(file: IO[str]) -> str:
    """What is in a file, without moving the place where its writer goes on."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()
