"""A way to a PostgreSQL server that can hang: connections stay open, new ones are taken, and nothing comes through."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from postgresql_server import Server


class Relay:
    """Listens on a free port of 127.0.0.1."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._flows = threading.Event()
        self._flows.set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._listen, daemon=True)]
        self._threads[0].start()

    def url(self, direct: str) -> str:
        """The way through here of a URL of the server."""
        port = self._listening.getsockname()[1]
        return direct.replace(f"host={self._server.folder}", f"host=127.0.0.1&port={port}")

    def hang(self) -> None:
        """Pass nothing on from now."""
        self._flows.clear()

    def go_on(self) -> None:
        """Pass on what came meanwhile, and what comes."""
        self._flows.set()

    def close(self) -> None:
        """End it, and every connection."""
        self._flows.set()
        for each in (self._listening, *self._open):  # closing alone does not end who waits for them
            _shut(each)
        for thread in self._threads:
            thread.join(10)
        self._listening.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                thread = threading.Thread(target=self._connect, args=(client,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _connect(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            self._open += client, server
            server.connect(str(self._server.folder / ".s.PGSQL.5432"))
            back = threading.Thread(target=self._pass, args=(server, client), daemon=True)
            back.start()
            self._pass(client, server)
            back.join()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                target.sendall(data)
        _shut(source)
        _shut(target)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
