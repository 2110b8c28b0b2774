"""A way to a server that can be made bad: connections are cut, or answered with 500, as the test says."""

from __future__ import annotations

import asyncio
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace

import pytest

Fault = Callable[[int], str]  # number of a connection -> "" for none, "cut", "500" or "late"


def ask_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours and the libraries below, which all ask several times, make next to no pause before the next attempt."""
    real = asyncio.sleep

    async def hasten(seconds: float, result: object = None) -> object:
        return await real(seconds / 50, result)

    monkeypatch.setattr("treadle.core.remote._FIRST_PAUSE", 0.01)
    monkeypatch.setattr("s3fs.core.asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": hasten}))
    monkeypatch.setattr("aiobotocore.endpoint.AioEndpoint._sleep", lambda _, seconds: hasten(seconds))


class FaultyProxy:
    """Listens on a free port of 127.0.0.1 and passes connections on to another one."""

    def __init__(self, port: int, fault: Fault) -> None:
        self.count, self.faults, self._fault, self._port = 0, 0, fault, port
        self._lock = threading.Lock()
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                outer._handle(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A connection that ends is no news here."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _handle(self, client: socket.socket) -> None:
        with self._lock:
            self.count += 1
            fault = self._fault(self.count)
            self.faults += bool(fault)
        if fault == "500":
            client.recv(65536)
            client.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        if fault == "cut":
            client.recv(1000)
            return
        with socket.create_connection(("127.0.0.1", self._port)) as server:
            back = threading.Thread(target=_pass, args=(server, client, 3000 if fault == "late" else None), daemon=True)
            back.start()
            _pass(client, server, None)
            back.join(10)


def _pass(source: socket.socket, target: socket.socket, limit: int | None) -> None:
    """Bytes from one to the other until the end; after ``limit`` of them both are cut off."""
    passed = 0
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
            passed += len(data)
            if limit is not None and passed > limit:
                break
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
