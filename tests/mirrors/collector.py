"""An HTTP server that keeps what is posted to it, and can be told to refuse or to say who it is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Collector(ThreadingHTTPServer):
    """``kept``: path, authorization and body of each request that was answered with 201."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kept: list[tuple[str, str | None, Any]] = []
        self.statuses: list[int] = []  # of the next answers; afterwards 201
        self.headers: dict[str, str] = {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def _answer(self, status: int) -> None:
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self._answer(200)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.statuses.pop(0) if self.server.statuses else 201
        if status == 201:
            self.server.kept.append((self.path, self.headers["Authorization"], body))
        self._answer(status)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@contextmanager
def collector() -> Iterator[Collector]:
    """One that listens until the block ends."""
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
