"""A PostgreSQL server: how it is connected to, what SQL it is given, and what its errors mean.

``psycopg`` is imported here; whoever imports this module says which extra it comes with.
"""

from __future__ import annotations

import functools
import os
import re
import socket
import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

from treadle.core.database import BUSY_SECONDS, Lost
from treadle.core.errors import Corrupt, TreadleError, UserError
from treadle.core.ledger_url import shown

T = TypeVar("T")

APPLICATION = "treadle: "
_OLDEST = 130_000  # PostgreSQL 13
_TYPES = {"INTEGER": "BIGINT", "REAL": "DOUBLE PRECISION", "BLOB": "BYTEA", "TEXT": 'TEXT COLLATE "C"'}
_TYPES |= {"WITHOUT ROWID": ""}  # how SQLite lays a table out
_TYPE = re.compile(rf"\b(?:{'|'.join(_TYPES)})\b")
_QUOTED = re.compile(r"('(?:[^']|'')*')")
_GONE = {"57P01", "57P02", "57P03", "57P05", "25P03"}  # what a server says last on a connection
_UNREACHABLE = re.compile(r"refused|No such file|starting up|shutting down|recovery mode|closed the connection")

# Whoever holds a transaction open and says no more, because the machine hangs or the cable is out, is let go of after
# a minute: the others wait for it. What waits for a lock waits as long as for a file.
_SETTINGS = (
    f"SET lock_timeout = '{BUSY_SECONDS:.0f}s'; SET idle_in_transaction_session_timeout = '60s'; "
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
)


class Connection(psycopg.Connection[tuple[object, ...]]):
    """``patience``: seconds for which a server may say nothing before the connection counts as broken; None for as long
    as it takes. TCP notices a peer that acknowledges nothing, not one that hangs, or a proxy whose server is gone."""

    patience: float | None = None

    def wait(self, gen: PQGen[T], *how: Any, **more: Any) -> T:
        """As psycopg, but not for ever."""
        return super().wait(gen if self.patience is None else self._bounded(gen, self.patience), *how, **more)

    def _bounded(self, gen: PQGen[T], patience: float) -> PQGen[T]:
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard = time.monotonic()
                elif time.monotonic() - heard > patience:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server said nothing for {patience:g} seconds")
                wanted = gen.send(ready)
        except StopIteration as ended:
            found: T = ended.value
            return found


@functools.lru_cache(maxsize=1_000)
def statement(sql: str) -> Any:
    """A statement with PostgreSQL's placeholders."""
    pieces = _QUOTED.split(sql.replace("%", "%%"))
    pieces[::2] = [piece.replace("?", "%s") for piece in pieces[::2]]
    return "".join(pieces)


def definition(ddl: str) -> str:
    """A CREATE statement with PostgreSQL's types: 64-bit integers, doubles, text that is compared byte by byte."""
    return _TYPE.sub(lambda found: _TYPES[found.group()], ddl)


def connect(url: str, patience: float | None = None) -> Connection:
    """A connection that commits each statement by itself; psycopg's error when there is none to be had. With
    ``patience`` in seconds, none of its waits is longer, those for locks and for the connection included."""
    given = psycopg.conninfo.conninfo_to_dict(url)
    name = f"{APPLICATION}process {os.getpid()} on {socket.gethostname()}"
    settings = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "connect_timeout": 10}
    settings["tcp_user_timeout"] = 20_000  # milliseconds until a server that acknowledges nothing counts as gone
    if patience is not None:
        settings["connect_timeout"] = max(2, int(patience))  # 2: psycopg's least
    settings = {key: value for key, value in settings.items() if key not in given}
    connection = Connection.connect(
        url,
        autocommit=True,
        client_encoding="utf8",
        application_name=name.encode("ascii", "replace")[:63].decode(),
        **settings,  # type: ignore[arg-type]
    )
    connection.patience = patience
    try:
        connection.execute(_SETTINGS)
        if patience is not None:  # whoever waits for a lock hears of it before the server counts as gone
            connection.execute(f"SET lock_timeout = {int(800 * min(patience, BUSY_SECONDS))}".encode())
    except BaseException:
        connection.close()
        raise
    return connection


def schema_of(connection: Connection, url: str) -> str:
    """The schema that tables are made in; ``UserError`` for a server that a ledger cannot be kept on."""
    found = connection.execute(
        "SELECT current_schema(), current_setting('server_encoding'), pg_is_in_recovery(), "
        "current_setting('server_version_num')::int"
    ).fetchone()
    assert found is not None
    schema, encoding, replica, version = found
    if int(str(version)) < _OLDEST:
        raise UserError(f"{shown(url)} is PostgreSQL {connection.info.server_version // 10_000}; 13 or later is needed")
    if encoding != "UTF8":
        raise UserError(f"{shown(url)} keeps text as {encoding}; make the database with ENCODING 'UTF8'")
    if replica:
        raise UserError(f"{shown(url)} is a read-only replica; name the primary in ledger")
    if schema is None:
        raise UserError(
            f"{shown(url)}: no schema of its search_path exists for this role; make it with CREATE SCHEMA, or grant"
            " USAGE on it"
        )
    return str(schema)


def is_lost(connection: Connection, error: psycopg.Error) -> bool:
    """Whether the connection is of no use any more."""
    return connection.closed or error.sqlstate in _GONE


def is_unreachable(error: psycopg.Error) -> bool:
    """Whether there may be a connection again in a moment: the server is restarting."""
    return error.sqlstate in _GONE or bool(_UNREACHABLE.search(str(error)))


def explain_connecting(url: str, error: psycopg.Error) -> UserError:
    """Why there is no connection, in one line that ends with what to do."""
    said = _said(error)
    if isinstance(error, psycopg.ProgrammingError):
        # What libpq says may quote a part of a password.
        return UserError(f"{shown(url)} is no URL that PostgreSQL understands; write postgresql://host/db")
    advice = "see that the server runs, and that host and port are right"
    for words, other in (
        ("password", "give it by PGPASSWORD, PGPASSFILE or a service file"),
        ("pg_hba.conf", "its pg_hba.conf has to let this user in"),
        ("permission denied", "the role has to be granted CONNECT on the database"),
        ("role", "give the user by PGUSER, and make the role with: createuser NAME"),
        ("database", "make it with: createdb NAME"),
        ("too many", "end some of its connections, or raise max_connections"),
        ("service", "see the file that PGSERVICEFILE names"),
    ):
        if words in said and "refused" not in said and "server running" not in said:
            advice = other
            break
    return UserError(f"cannot connect to {shown(url)}: {said}; {advice}")


def explain(url: str, connection: Connection, error: psycopg.Error) -> TreadleError | None:
    """What went wrong in one line; None for what is a mistake of the caller."""
    place, said, code = shown(url), _said(error), error.sqlstate or ""
    if is_lost(connection, error):
        return Lost(
            f"the connection to {place} was lost: {said}; see that the server runs and try again", written=False
        )
    if code in ("55P03", "40P01", "40001"):
        return UserError(f"{place} is held by another process; wait until it is done, or end it")
    if code == "57014":
        return UserError(f"{place} gave up: {said}; raise statement_timeout for this role")
    if code == "42501":
        return UserError(f"{place}: {said}; grant this role what it needs, or use the owner of the tables")
    if code == "25006":
        return UserError(f"{place} cannot be written: {said}; name the primary in ledger")
    if code[:2] in ("53", "58"):
        return UserError(f"cannot write {place}: {said}; free some space or memory on its server and try again")
    if code[:2] == "22":
        return UserError(f"{place} cannot keep this: {said}")
    if code in ("42P01", "42703", "42809") or code[:2] == "XX":
        return Corrupt(f"{place} is damaged: {said}; put back a backup: treadle restore FILE")
    return None


def _said(error: psycopg.Error) -> str:
    """The message without its position and hints, in one line."""
    text = error.diag.message_primary or str(error)
    return " ".join(text.split("\n\tIs the server")[0].split()) or type(error).__name__
