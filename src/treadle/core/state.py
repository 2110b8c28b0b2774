"""State: what changes and is never evidence. Leases of running things, people's keys, cursors, deliveries of heads, API
keys and what they used (``record/api_key.py``, ``record/api_key_use.py``).
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from treadle.core.database import Database, Lost
from treadle.core.errors import TreadleError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, started REAL NOT NULL, beat REAL NOT NULL);
CREATE TABLE IF NOT EXISTS people (lookup TEXT PRIMARY KEY, key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS cursors (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS head_deliveries (
    target TEXT NOT NULL, size INTEGER NOT NULL, root TEXT NOT NULL, signature TEXT NOT NULL,
    delivered INTEGER NOT NULL, PRIMARY KEY (target, size));
CREATE TABLE IF NOT EXISTS api_keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, created REAL NOT NULL, expires REAL, revoked REAL,
    rules TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS api_key_use (
    api_key TEXT NOT NULL, what TEXT NOT NULL, period TEXT NOT NULL, holder TEXT NOT NULL, report INTEGER NOT NULL,
    spent INTEGER NOT NULL, held INTEGER NOT NULL, PRIMARY KEY (api_key, what, period, holder));
"""

_SET = "INSERT INTO cursors VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"

BEAT_SECONDS = 15.0
STALE_AFTER = 60.0  # seconds without a heartbeat after which a lease on another host counts as dead


class Leases:
    """Who is at work on what, in a table that is there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def _write(self, sql: str, parameters: Sequence[Any]) -> None:
        """A statement that may be done twice, and is when the connection broke the first time."""
        for again in (True, False):
            try:
                with self._database.transaction() as cursor:
                    cursor.execute(sql, parameters)
            except Lost:
                if not again:
                    raise
            else:
                return

    def take_lease(self, name: str) -> None:
        """Say that this process works on ``name``."""
        moment = self._database.clock()
        self._write(
            "INSERT INTO leases VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
            "host = excluded.host, pid = excluded.pid, started = excluded.started, beat = excluded.beat",
            (name, socket.gethostname(), os.getpid(), _process_start(os.getpid()) or moment, moment),
        )

    def take_silent_lease(self, name: str, seconds: float) -> None:
        """Say that somebody who is no process of ours works on ``name``; it ends when ``beat`` was not called for so
        many seconds."""
        moment = self._database.clock()
        self._write(
            "INSERT INTO leases VALUES (?, '', 0, ?, ?) ON CONFLICT (name) DO UPDATE SET "
            "host = excluded.host, pid = excluded.pid, started = excluded.started, beat = excluded.beat",
            (name, seconds, moment),
        )

    def beat(self, name: str) -> None:
        """Say that it is still at it."""
        self._write("UPDATE leases SET beat = ? WHERE name = ?", (self._database.clock(), name))

    def claim_lease(self, name: str) -> bool:
        """Take a lease that nobody holds who is at work; False where somebody does."""
        moment, mine = self._database.clock(), (socket.gethostname(), os.getpid())
        with self._database.transaction() as cursor:
            rows = cursor.execute("SELECT host, pid, started, beat FROM leases WHERE name = ?", (name,)).fetchall()
            for host, pid, started, beat in rows:
                if (host, pid) != mine and _alive(host, pid, started, moment - beat):
                    return False
            cursor.execute("DELETE FROM leases WHERE name = ?", (name,))
            values = (name, *mine, _process_start(os.getpid()) or moment, moment)
            cursor.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?)", values)
        return True

    @contextmanager
    def beating(self, name: str) -> Iterator[None]:
        """Say so every few seconds, as long as the block takes."""
        ended = threading.Event()

        def beats() -> None:
            while not ended.wait(BEAT_SECONDS):
                with suppress(TreadleError):  # a busy database; the next beat will do
                    self.beat(name)

        thread = threading.Thread(target=beats, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def drop_lease(self, name: str) -> None:
        """Say that it is done."""
        self._write("DELETE FROM leases WHERE name = ?", (name,))

    def dead_leases(self, prefix: str = "") -> list[str]:
        """Names whose holder is gone: its process has ended, or it was silent for too long on another host."""
        return [name for name, alive in self._leases(prefix) if not alive]

    def live_leases(self, prefix: str = "") -> list[str]:
        """Names whose holder is at work, as far as can be told from here; by name."""
        return [name for name, alive in self._leases(prefix) if alive]

    def _leases(self, prefix: str) -> list[tuple[str, bool]]:
        rows = self._database.query(
            "SELECT name, host, pid, started, beat FROM leases WHERE substr(name, 1, ?) = ? ORDER BY name",
            (len(prefix), prefix),
        )
        moment = self._database.clock() if rows else 0.0
        return [(str(name), _alive(host, pid, started, moment - beat)) for name, host, pid, started, beat in rows]


class State(Leases):
    """Leases, people's keys and cursors, in tables of their own."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        database.script(_SCHEMA)

    # -- cursors

    def get(self, name: str) -> Any:
        """A small value kept under a name, or None."""
        rows = self._database.query("SELECT value FROM cursors WHERE name = ?", (name,))
        return json.loads(rows[0][0]) if rows else None

    def set(self, name: str, value: Any) -> None:
        """Keep a small JSON value under a name."""
        self._write(_SET, (name, json.dumps(value)))

    def swap(self, name: str, value: Any) -> Any:
        """Keep another value under a name (None forgets it) and give the one before, in one step."""
        with self._database.transaction() as cursor:
            rows = cursor.execute("SELECT value FROM cursors WHERE name = ?", (name,)).fetchall()
            if value is None:
                cursor.execute("DELETE FROM cursors WHERE name = ?", (name,))
            else:
                cursor.execute(_SET, (name, json.dumps(value)))
        return json.loads(rows[0][0]) if rows else None

    def names(self, prefix: str) -> list[str]:
        """Names under which something is kept, by how they begin."""
        sql = "SELECT name FROM cursors WHERE substr(name, 1, ?) = ? ORDER BY name"
        return [str(row[0]) for row in self._database.query(sql, (len(prefix), prefix))]

    def values(self, prefix: str) -> dict[str, Any]:
        """The same with what is kept, all as of one moment."""
        sql = "SELECT name, value FROM cursors WHERE substr(name, 1, ?) = ? ORDER BY name"
        return {str(name): json.loads(value) for name, value in self._database.query(sql, (len(prefix), prefix))}

    # -- people

    def person_key(self, lookup: str, *, create: bool = True) -> bytes | None:
        """The key of one person, found by a keyed digest of their name; made when there is none."""
        rows = self._database.query("SELECT key FROM people WHERE lookup = ?", (lookup,))
        if rows or not create:
            return bytes(rows[0][0]) if rows else None
        self._write("INSERT INTO people VALUES (?, ?) ON CONFLICT (lookup) DO NOTHING", (lookup, os.urandom(32)))
        return self.person_key(lookup)

    def destroy_person(self, lookup: str) -> None:
        """Forget a person's key; what was named under it can no longer be linked to them."""
        self._write("DELETE FROM people WHERE lookup = ?", (lookup,))

    def scrub(self) -> None:
        """Leave no byte of what was deleted here; what that covers, the database says."""
        self._database.scrub("leases", "people", "cursors")


def _alive(host: str, pid: int, started: float, silent: float) -> bool:
    if not host:  # nobody's process: in place of its start stands how long it may be silent
        return silent < started
    if host != socket.gethostname():
        return silent < STALE_AFTER
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    start = _process_start(pid)  # a later process may have got the same number
    return start is None or start == started


def _process_start(pid: int) -> float | None:
    """When a process started, in clock ticks since boot, where /proc tells; None otherwise."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 (a virtual file)
            fields = file.read().rsplit(b")", 1)[1].split()
        return -1.0 if fields[0] == b"Z" else float(fields[19])  # a zombie has ended
    except (OSError, IndexError, ValueError):
        return None
