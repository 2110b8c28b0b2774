"""A server that speaks the parts of GitHub's, GitLab's and Confluence's REST APIs which the sources use.

Paths, parameters, headers and fields are those of the vendors' documentation; pages are small, so that there are many.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

PAGE = 2  # items of a page, whatever is asked for
Rows = list[dict[str, Any]]


class ApiServer(ThreadingHTTPServer):
    """``asked``: every request's path with its parameters. ``first``: answers (status, headers, body) that come before
    any other. ``rows``: what lies at a path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.headers: list[dict[str, str]] = []
        self.first: list[tuple[int, dict[str, str], bytes]] = []
        self.rows: dict[str, Rows] = {}


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        asked = dict(parse_qsl(query))
        self.server.asked.append((unquote(path), asked))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        if self.server.first:
            self._send(*self.server.first.pop(0))
        elif path.startswith("/wiki/"):
            self._confluence(path, asked)
        else:
            self._listed(path, asked)

    def _listed(self, path: str, asked: dict[str, str]) -> None:
        """GitHub and GitLab: a list, with the next page in the header ``Link``."""
        rows = self.server.rows.get(unquote(path))
        if rows is None:
            self._send(404, {}, b'{"message": "Not Found"}')
            return
        key = asked.get("order_by", asked.get("sort", "created"))
        key = key if key.endswith("_at") else f"{key}_at"
        found = sorted(
            rows, key=lambda row: str(row.get(key)), reverse=asked.get("direction", asked.get("sort")) == "desc"
        )
        since = asked.get("since", asked.get("updated_after", ""))
        found = [row for row in found if str(row.get("updated_at")) >= since]
        size = min(PAGE, int(asked.get("per_page", 30)))
        page, last = int(asked.get("page", 1)), max(1, -(-len(found) // size))
        links = [("next", page + 1)] * (page < last) + [("last", last)] * (page < last)
        base = f"{self.server.url}{path}?"
        link = ", ".join(f'<{base}{urlencode({**asked, "page": number})}>; rel="{name}"' for name, number in links)
        headers = {"Link": link, "X-Total": str(len(found))} if link else {"X-Total": str(len(found))}
        self._send(200, headers, json.dumps(found[(page - 1) * size : page * size]).encode())

    def _confluence(self, path: str, asked: dict[str, str]) -> None:
        """Confluence: ``results``, with the next page in ``_links``."""
        found = self.server.rows.get(path)
        if found is None:
            self._send(404, {}, b"{}")
            return
        if asked.get("sort") == "-modified-date":
            found = sorted(found, key=lambda row: str(row["version"]["createdAt"]), reverse=True)
        start = int(asked.get("cursor", 0))
        links = {}
        if start + PAGE < len(found):
            links = {"next": f"{path}?{urlencode({**asked, 'cursor': start + PAGE})}"}
        body = {"results": found[start : start + PAGE], "_links": links, "totalSize": len(found)}
        self._send(200, {}, json.dumps(body).encode())

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """One that listens until the block ends."""
    with ApiServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def path_of(url: str) -> str:
    return urlsplit(url).path
