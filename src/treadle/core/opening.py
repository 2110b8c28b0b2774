"""Which database a place names: a file, or a server by its URL."""

from __future__ import annotations

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
