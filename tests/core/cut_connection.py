"""A server's socket through which every connection goes, to be cut at the moment of a commit."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Literal

_COMMIT = b"Q\0\0\0\x0bCOMMIT\0"  # as a message of its own


class CutConnection:
    """Passes everything on to a PostgreSQL server's socket, until ``at`` is set: then it cuts at the next COMMIT.

    ``before`` cuts before the server has heard of it, ``after`` once the server has answered, which the client is not
    told.
    """

    def __init__(self, folder: Path, server: Path) -> None:
        self.at: Literal["before", "after"] | None = None
        self._server = server / ".s.PGSQL.5432"
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / ".s.PGSQL.5432"))
        self._listening.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._server))
            answered = threading.Event()
            there = threading.Thread(target=self._there, args=(client, server, answered))
            back = threading.Thread(target=self._back, args=(client, server, answered))
            self._threads += [there, back]
            there.start()
            back.start()

    def _there(self, client: socket.socket, server: socket.socket, answered: threading.Event) -> None:
        while data := _receive(client):
            if self.at and _COMMIT in data:
                cut, self.at = self.at, None
                _end(client)
                if cut == "after":
                    answered.clear()
                    server.sendall(data)
                    assert answered.wait(60)
                break
            server.sendall(data)
        _end(client)
        _end(server)

    def _back(self, client: socket.socket, server: socket.socket, answered: threading.Event) -> None:
        while data := _receive(server):
            answered.set()
            try:
                client.sendall(data)
            except OSError:
                continue
        client.close()
        server.close()

    def close(self) -> None:
        """Stop, with every connection."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(60)


def _receive(place: socket.socket) -> bytes:
    try:
        return place.recv(1 << 16)
    except OSError:
        return b""


def _end(place: socket.socket) -> None:
    with suppress(OSError):
        place.shutdown(socket.SHUT_RDWR)
