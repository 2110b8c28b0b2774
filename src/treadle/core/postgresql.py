"""The database on a PostgreSQL server, which processes on many machines may write.

A transaction holds an advisory lock from its first statement to its end, so those that write take turns, and rows of
the ledger have no gaps. It is committed with ``synchronous_commit`` off unless ``sync`` is asked for: that outlives
whatever happens to Treadle, while a crash of the server itself may cost the last half second (three times its
``wal_writer_delay``). What is published of the ledger's head was flushed before.

Where the connection breaks, the next transaction makes another one; what was not committed was not written. Session
locks and prepared statements need a server, or a pooler that keeps a session (not one that pools transactions).
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from treadle.core.database import BUSY_SECONDS, Cursor, Database, Lost, Reader
from treadle.core.errors import UserError
from treadle.core.ledger_url import shown
from treadle.core.postgresql_cursor import PostgresqlCursor, SnapshotReader
from treadle.core.postgresql_lock import SharedLock
from treadle.core.postgresql_server import (
    APPLICATION,
    Connection,
    connect,
    definition,
    explain,
    explain_connecting,
    is_lost,
    is_unreachable,
    schema_of,
    statement,
)

T = TypeVar("T")

_BUSY_SECONDS = BUSY_SECONDS
_PATIENCE = 10.0  # seconds during which a server that restarts is waited for
_WRITING, _HOLDING, _OBJECTS, _USING = 0x7472_0001, 0x7472_0002, 0x7472_0003, 0x7472_0004  # locks of each schema
_USE = f"SELECT pg_advisory_lock_shared({_USING}, hashtext(current_schema()))"  # who restores waits for nobody
_MADE = re.compile(r"CREATE (?:UNIQUE )?(?:TABLE|INDEX) IF NOT EXISTS (\w+)")

# Names: triggers and rules that change what is written, policies that hide rows, views in the place of tables.
_PLANTED = """
SELECT tgname, 'is a trigger that was put in by hand' FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE NOT tgisinternal AND relnamespace = current_schema()::regnamespace
UNION ALL SELECT rulename, 'is a rule that was put in by hand' FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
    WHERE relkind <> 'v' AND relnamespace = current_schema()::regnamespace
UNION ALL SELECT relname, 'hides rows by a policy' FROM pg_class
    WHERE relrowsecurity AND relnamespace = current_schema()::regnamespace
UNION ALL SELECT relname, 'is a view in the place of a table' FROM pg_class
    WHERE relkind IN ('v', 'm', 'f') AND relnamespace = current_schema()::regnamespace
UNION ALL SELECT relname, 'is an index that is not valid' FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE NOT indisvalid AND relnamespace = current_schema()::regnamespace
"""

_log = logging.getLogger(__name__)


class PostgresqlDatabase(Database):
    """One connection, made again when it breaks, to one schema (the first of the search path)."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.place = self.name = shown(url)
        self._lock = threading.RLock()
        self._within = False  # a transaction is open
        self._bound: float | None = None
        self._guard = SharedLock(self._patient, self._explained, f"({_OBJECTS}, hashtext(current_schema()))")
        try:
            self._connection = connect(url)
        except psycopg.Error as error:
            raise explain_connecting(url, error) from None
        try:
            with self._explained():
                self._connection.execute(statement(_USE))
                self._schema = schema_of(self._connection, url)
            self._check_format()
        except BaseException:
            self._connection.close()
            raise

    @contextmanager
    def transaction(self, *, sync: bool = False) -> Iterator[Cursor]:
        """Everything inside, or nothing. ``sync`` waits until it would survive a loss of power (and reached the
        standbys that the server is told to wait for).

        ``Lost`` when the connection breaks; its ``written`` is None when that happened while committing.
        """
        with self._lock, self._explained():
            if self._within:
                raise RuntimeError("a transaction is open in this thread already")
            self._again(lambda connection: self._begin(connection, sync))
            self._within = True
            connection = self._connection
            try:
                with connection.pipeline():  # statements do not wait for each other's answers
                    yield PostgresqlCursor(connection.cursor())
                self._commit(connection)
            except BaseException:
                self._roll_back(connection)
                raise
            finally:
                self._within = False

    def _begin(self, connection: Connection, sync: bool) -> None:
        # As one message. Later statements see what was committed before the lock was granted.
        commit = "on" if sync else "off"
        connection.execute(
            f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL synchronous_commit = {commit}; "
            f"SELECT pg_advisory_xact_lock({_WRITING}, hashtext(current_schema()))"
        )

    def _commit(self, connection: Connection) -> None:
        try:
            done = connection.execute("COMMIT", prepare=False).statusmessage
        except psycopg.Error as error:
            if is_lost(connection, error):
                message = (
                    f"the connection to {self.place} was lost while committing, so whether the last change was kept is "
                    "not known; see that the server runs and try again"
                )
                raise Lost(message, written=None) from None
            raise
        if done != "COMMIT":
            raise RuntimeError("a statement of the transaction had failed, so nothing was written")

    def _roll_back(self, connection: Connection) -> None:
        try:
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()  # the server rolls back what nobody commits

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a SELECT."""
        with self._lock, self._explained():
            return self._again(lambda connection: connection.execute(statement(sql), parameters).fetchall())

    def script(self, ddl: str) -> None:
        """Create tables and indexes that are not there yet; a role that may not create any can use those there are."""
        with self._lock, self._explained():
            names = "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
            there = {row[0] for row in self.query(names)}
            missing = [part for part in ddl.split(";") if part.strip() and _names(part) not in there]
            if missing:
                with self.transaction(sync=True) as cursor:
                    for part in missing:
                        cursor.execute(definition(part))

    @contextmanager
    def snapshot(self) -> Iterator[Reader]:
        """A connection of its own that sees one moment, while others go on writing."""
        connection = self._another()
        with ExitStack() as closing, self._explained(connection):
            closing.callback(connection.close)
            connection.execute("SET idle_in_transaction_session_timeout = 0")
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield SnapshotReader(connection, closing)

    def batches(self, reader: Reader, sql: str, size: int) -> Iterator[list[Any]]:
        """The rows of a SELECT; the server keeps text in one encoding, so each can be read."""
        cursor = reader.execute(sql)
        while rows := cursor.fetchmany(size):
            yield rows

    def inspect(self, reader: Reader) -> Iterator[tuple[str, str]]:
        """What was put in by hand to change or hide rows. Damaged pages show when they are read."""
        yield from ((str(name), str(detail)) for name, detail in reader.execute(_PLANTED))

    def sync(self) -> None:
        """Wait until everything that anybody has committed so far is flushed, by flushing a message behind it."""
        message = (
            "BEGIN; SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, 'treadle', ''); COMMIT"
        )
        with self._lock, self._explained():
            self._again(lambda connection: connection.execute(message))

    def scrub(self, *tables: str) -> None:
        """Rewrite the tables without the rows that were deleted.

        Not covered: the server's write-ahead log until it is recycled, its archive, replicas' files and backups. Where
        the role does not own a table, that is logged and its owner has to do it. ``UserError`` when somebody reads for
        so long that deleted rows cannot be removed.
        """
        with self._lock, self._explained():
            names = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
            wanted = tables or tuple(str(row[0]) for row in self.query(names))
            with self.transaction() as cursor:
                latest = cursor.execute("SELECT pg_current_xact_id()::xid::text").fetchone()[0]
            self._wait_for_readers(latest)
            refused: list[str] = []

            def heard(diagnostic: psycopg.errors.Diagnostic) -> None:
                if diagnostic.severity_nonlocalized == "WARNING":
                    refused.append(str(diagnostic.message_primary))

            self._connection.add_notice_handler(heard)
            try:
                for name in wanted:
                    self._connection.execute(sql.SQL("VACUUM (FULL) {}").format(sql.Identifier(name)))
            finally:
                self._connection.remove_notice_handler(heard)
            for line in refused:
                _log.warning("%s: %s; its owner has to run VACUUM (FULL), or deleted bytes stay", self.place, line)

    def _wait_for_readers(self, transaction: str) -> None:
        """Until nobody can see the rows any more that were deleted before this transaction."""
        deadline = time.monotonic() + _BUSY_SECONDS
        reading = (
            "SELECT application_name, pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND greatest(age(backend_xmin), age(backend_xid)) > age(?::xid)"
        )
        while found := self.query(reading, (transaction,)):
            if time.monotonic() > deadline:
                name = _holder(found[0][0]) or f"server process {found[0][1]}"
                raise UserError(
                    f"{self.place} is being read by {name}, so deleted rows cannot be wiped; end it and try again"
                )
            time.sleep(0.05)

    def clock(self) -> float:
        """The server's clock."""
        return float(self.query("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0])

    @contextmanager
    def held(self, waiting: Callable[[str], object] | None = None) -> Iterator[None]:
        """Hold the project among all machines. The server lets go when the holder, or its connection, dies."""
        connection = self._patient()
        try:
            with self._explained(connection):
                lock = f"({_HOLDING}, hashtext(current_schema()))"
                row = connection.execute(statement(f"SELECT pg_try_advisory_lock{lock}")).fetchone()
                if not (row and row[0]):
                    if waiting is not None:
                        waiting(self._who_holds(connection, _HOLDING))
                    connection.execute(statement(f"SELECT pg_advisory_lock{lock}"))
            yield
            with self._explained(connection):
                try:
                    connection.execute("SELECT 1")
                except psycopg.OperationalError:
                    _log.warning("%s: the connection that held the project broke meanwhile", self.place)
        finally:
            connection.close()

    def guarded(self, *, alone: bool) -> AbstractContextManager[None]:
        """As ``Database``, among all machines. ``Lost`` at the end when the connection broke meanwhile."""
        return self._guard.held(alone=alone)

    def _who_holds(self, connection: Connection, lock: int) -> str:
        row = connection.execute(
            statement(
                "SELECT application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE granted "
                f"AND locktype = 'advisory' AND classid = {lock} AND objid = hashtext(current_schema())::oid "
                "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        ).fetchone()
        return (_holder(row[0]) if row else "") or "another command"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else has this schema open, on any machine; ``UserError`` where somebody has."""
        lock = f"({_USING}, hashtext(current_schema()))"
        with self._lock, self._explained():
            self._connection.execute(statement(f"SELECT pg_advisory_unlock_shared{lock}"))
            row = self._connection.execute(statement(f"SELECT pg_try_advisory_lock{lock}")).fetchone()
            if not (row and row[0]):
                who = self._who_holds(self._connection, _USING)
                self._connection.execute(statement(_USE))
                raise UserError(f"{self.place} is open in {who}; end what uses it and try again")
            try:
                yield
            finally:
                self._connection.execute(statement(f"SELECT pg_advisory_unlock{lock}"))
                self._connection.execute(statement(_USE))

    def bound(self, seconds: float) -> None:
        """As ``Database``; connections of their own (snapshots, and what waits for the project) have no bound."""
        with self._lock:
            self._bound = seconds
            self._reconnect()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    # -- the connection

    def _patient(self) -> Connection:
        """A connection that waits for a lock as long as it takes."""
        connection = self._another()
        with self._explained(connection):
            connection.execute(
                "SELECT set_config(name, '0', false) FROM pg_settings "
                "WHERE name IN ('lock_timeout', 'statement_timeout', 'idle_session_timeout')"
            )
        return connection

    def _another(self) -> Connection:
        try:
            return connect(self._url)
        except psycopg.Error as error:
            raise explain_connecting(self._url, error) from None

    def _again(self, work: Callable[[Connection], T]) -> T:
        """Do it, and once more over a new connection where the old one turns out to be broken."""
        if self._within:
            return work(self._connection)
        try:
            return work(self._connection)
        except BaseException as error:
            if not isinstance(error, psycopg.Error) or not is_lost(self._connection, error):
                self._roll_back(self._connection)
                raise
        self._reconnect()
        return work(self._connection)

    def _reconnect(self) -> None:
        self._connection.close()
        deadline = time.monotonic() + (_PATIENCE if self._bound is None else min(_PATIENCE, self._bound))
        while True:
            try:
                self._connection = connect(self._url, self._bound)
                self._connection.execute(statement(_USE))
            except psycopg.Error as error:
                if time.monotonic() > deadline or not is_unreachable(error):
                    raise explain_connecting(self._url, error) from None
                time.sleep(0.1)
            else:
                return

    @contextmanager
    def _explained(self, connection: Connection | None = None) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            explained = explain(self._url, connection or self._connection, error)
            if explained is None:
                raise
            raise explained from None


def _names(part: str) -> str:
    found = _MADE.search(part)
    return found.group(1).lower() if found else ""


def _holder(application: object) -> str:
    """Who it is, from the name of a connection of ours."""
    return str(application or "").removeprefix(APPLICATION)
