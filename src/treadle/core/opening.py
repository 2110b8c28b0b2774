"""Which database a place names: a file, or a server by its URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from treadle.core.database import Database
from treadle.core.errors import MissingExtra
from treadle.core.sqlite import SqliteDatabase


def open_database(place: Path | str) -> Database:
    """Open it; what is missing is made."""
    if isinstance(place, Path):
        return SqliteDatabase(place)
    try:
        from treadle.core.postgresql import PostgresqlDatabase
    except ImportError:
        raise MissingExtra("psycopg", extra="postgres") from None
    return PostgresqlDatabase(place)


def open_as_guest(url: str, needs: Mapping[str, Sequence[str]]) -> Database:
    """A server's database for somebody who makes nothing there, and may do no more than ``needs``: privileges by table.
    ``UserError`` where no ledger of this version is kept there, or something of that was not granted."""
    try:
        from treadle.core.postgresql_guest import open_guest
    except ImportError:
        raise MissingExtra("psycopg", extra="postgres") from None
    return open_guest(url, needs)
