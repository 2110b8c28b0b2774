"""A database of what a step notes while it runs and nobody needs after: in memory while it is small, then on disk.

SQLite makes a file without a name for it (where ``SQLITE_TMPDIR`` or ``TMPDIR`` says, else in ``/var/tmp``) and so
leaves nothing of it, however the process ends.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from treadle.core.errors import UserError

_PRAGMAS = (
    "journal_mode = OFF",  # it is never rolled back
    "synchronous = OFF",
    "cache_size = -4000",  # KiB
    "temp_store = FILE",  # what it sorts, too
)


class Scratch:
    """One such database; ``schema`` is run first. Closed when it is let go of."""

    def __init__(self, *schema: str) -> None:
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in _PRAGMAS:
            self._database.execute(f"PRAGMA {pragma}")
        for statement in schema:
            self._database.execute(statement)
        self._database.execute("BEGIN")  # one transaction for good: nobody else reads it

    def __del__(self) -> None:
        self._database.close()

    def run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """One statement; its rows come as they are asked for. ``UserError`` when the disk is full."""
        with _explained():
            return self._database.execute(sql, values)

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for each row."""
        with _explained():
            self._database.executemany(sql, rows)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UserError(f"temporary files: {error}; make room there, or set TMPDIR to a folder with more") from None
