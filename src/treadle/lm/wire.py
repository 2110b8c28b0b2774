"""The sockets of an HTTP client, so that whoever waits on one of them can be woken."""

from __future__ import annotations

from contextlib import suppress
from socket import SHUT_RDWR, socket
from threading import Lock
from typing import Any


class Wire:
    """``follow`` is the ``trace`` of httpx. Once the wire is cut, whoever waits on a socket gets an error at once."""

    def __init__(self) -> None:
        self._lock, self._sockets, self._is_cut = Lock(), list[socket](), False

    def follow(self, event: str, info: dict[str, Any]) -> None:
        """What the client says that it does; a socket that closed is followed no longer."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            with self._lock:
                self._sockets = [each for each in self._sockets if each.fileno() >= 0]
                self._sockets.append(info["return_value"].get_extra_info("socket"))
            if self._is_cut:
                self.cut()

    def cut(self) -> None:
        """For good: what connects later is cut as well."""
        self._is_cut = True
        with self._lock:
            for each in self._sockets:
                with suppress(OSError):
                    each.shutdown(SHUT_RDWR)
