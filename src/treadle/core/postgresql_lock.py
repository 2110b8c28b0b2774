"""An advisory lock of a session that threads of one process share, or one has alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from treadle.core.postgresql_server import Connection, statement


@dataclass
class _Holder:
    """A connection that has the lock, and how many threads rely on it."""

    connection: Connection
    users: int = 0


class SharedLock:
    """``key`` is the SQL of the lock's two numbers; ``explained`` says in our words what went wrong with a
    connection."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        explained: Callable[[Connection], AbstractContextManager[None]],
        key: str,
    ) -> None:
        self._connect, self._explained, self._key = connect, explained, key
        self._lock = threading.Lock()
        self._shared: _Holder | None = None

    @contextmanager
    def held(self, *, alone: bool) -> Iterator[None]:
        """Hold it; ``Lost`` at the end when the connection broke, for then others may have had it meanwhile."""
        holder = self._taken(alone=True) if alone else self._join()
        try:
            yield
            with self._lock, self._explained(holder.connection):
                holder.connection.execute("SELECT 1")
        finally:
            with self._lock:
                holder.users -= 1
                if holder.users <= 0:
                    holder.connection.close()
                    self._shared = None if self._shared is holder else self._shared

    def _join(self) -> _Holder:
        with self._lock:
            if self._shared is None or self._shared.connection.closed:
                self._shared = self._taken(alone=False)
            self._shared.users += 1
            return self._shared

    def _taken(self, *, alone: bool) -> _Holder:
        connection = self._connect()
        try:
            with self._explained(connection):
                connection.execute(statement(f"SELECT pg_advisory_lock{'' if alone else '_shared'}{self._key}"))
        except BaseException:
            connection.close()
            raise
        return _Holder(connection)
