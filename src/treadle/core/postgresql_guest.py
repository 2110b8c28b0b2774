"""The database of a ledger on a PostgreSQL server, for a guest: a process that uses some of its tables, makes none, and
needs to be granted no more than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing

import psycopg

from treadle.core.database import FORMAT
from treadle.core.errors import UserError
from treadle.core.ledger_url import shown
from treadle.core.postgresql import PostgresqlDatabase
from treadle.core.postgresql_server import Connection, connect, explain, explain_connecting, schema_of

_PATIENCE = 10.0  # seconds for each answer
_LEDGER = ("ledger", "meta")  # by these a ledger is known, of whatever version
_THERE = (
    "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
    " AND relname = ANY(%s::text[])"
)
_LACKING = (
    "SELECT needed.privilege, needed.name FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY"
    " AS needed(name, privilege, place) JOIN pg_class ON relname = needed.name"
    " AND relnamespace = current_schema()::regnamespace"
    " WHERE NOT has_table_privilege(pg_class.oid, needed.privilege) ORDER BY place"
)


def open_guest(url: str, needs: Mapping[str, Sequence[str]]) -> PostgresqlDatabase:
    """Open it; ``needs`` are privileges by table, that of reading ``meta`` among them.

    ``UserError`` where there is no connection, where the first schema of the search path keeps no ledger of this
    version, and for what the role was not granted.
    """
    try:
        connection = connect(url, _PATIENCE)
    except psycopg.Error as error:
        raise explain_connecting(url, error) from None
    with closing(connection):
        try:
            _check(url, connection, needs)
        except psycopg.Error as error:
            explained = explain(url, connection, error)
            if explained is None:
                raise
            raise explained from None
    return PostgresqlDatabase(url)


def _check(url: str, connection: Connection, needs: Mapping[str, Sequence[str]]) -> None:
    place, schema = shown(url), schema_of(connection, url)
    wanted = sorted({*_LEDGER, *needs})
    there = {str(name) for (name,) in connection.execute(_THERE, (wanted,))}
    for name in _LEDGER:
        if name not in there:
            raise UserError(
                f"{place} keeps no Treadle ledger: its schema {schema} has no table {name}; name the database of the"
                " project's ledger, and its schema where that is another (?options=-csearch_path=NAME)"
            )
    for name in wanted:
        if name not in there:
            raise UserError(f"{place} has no table {name} yet; run treadle keys list in the project, with this Treadle")
    lacking = _lacking(connection, needs)
    if lacking:
        raise UserError(f"{place}: this role may not {lacking[0]}; its owner has to grant it: {'; '.join(lacking)}")
    _check_format(place, connection)


def _lacking(connection: Connection, needs: Mapping[str, Sequence[str]]) -> list[str]:
    """What was not granted, as ``SELECT ON meta``."""
    pairs = [(name, privilege) for name, privileges in needs.items() for privilege in privileges]
    names, privileges = [name for name, _ in pairs], [privilege for _, privilege in pairs]
    return [f"{privilege} ON {name}" for privilege, name in connection.execute(_LACKING, (names, privileges))]


def _check_format(place: str, connection: Connection) -> None:
    """Only who has the project can bring it up to date."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
    found = str(row[0]) if row else ""
    if not found.isdecimal() or not found.isascii():
        raise UserError(f"{place} keeps no Treadle ledger: its table meta says no format")
    if int(found) < FORMAT:
        raise UserError(
            f"{place} has format {found}, this Treadle takes format {FORMAT}; run treadle status in the project with"
            " this Treadle, which brings it up to date"
        )
    if int(found) > FORMAT:
        raise UserError(
            f"{place} has format {found}, this Treadle reads formats up to {FORMAT}; use the Treadle that wrote it, or"
            " a newer one"
        )
