"""A real site on this machine: pages that may be changed, and everything that a crawler has to survive."""

from __future__ import annotations

import gzip
import http.server
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[["Handler"], None]
PARAGRAPH = "These words are the text of the page, and there are enough of them to be one. "


def page(title: str, *links: str, head: str = "", text: str = "") -> bytes:
    """A page of its own words that links to others."""
    anchors = " ".join(link if link.startswith("<") else f'<a href="{link}">{link}</a>' for link in links)
    return (
        f"<!doctype html><html lang=en><head><title>{title}</title>{head}</head>"
        f"<body><p>{title}: {text or PARAGRAPH}</p><p>{anchors}</p></body></html>"
    ).encode()


@dataclass
class Site:
    """``pages`` are answered with 200 and an ETag; ``answers`` do as they like. ``asked`` is what came in, in order."""

    pages: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    prefixes: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    url: str = ""
    tls: ssl.SSLContext | None = None
    _server: Any = None

    def __enter__(self) -> Site:
        site = self

        class Bound(Handler):
            served = site

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def forget(self) -> None:
        """Start counting anew."""
        self.asked.clear()
        self.headers.clear()
        self.statuses.clear()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Site

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        site = self.served
        site.asked.append(self.path)
        site.headers.append(dict(self.headers))
        try:
            self._answered(site)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answered(self, site: Site) -> None:
        for prefix, answer in site.prefixes.items():
            if self.path.startswith(prefix):
                answer(self)
                return
        if self.path in site.answers:
            site.answers[self.path](self)
        elif self.path in site.pages:
            self._page(site, site.pages[self.path])
        else:
            self.say(404, page("not here"))

    def _page(self, site: Site, body: bytes) -> None:
        etag = f'"{hash(body):x}"'
        if self.headers.get("If-None-Match") == etag:
            self.say(304, b"", ETag=etag)
        else:
            self.say(200, body, ETag=etag, content_type=site.types.get(self.path, "text/html; charset=utf-8"))

    def say(self, status: int, body: bytes = b"", *, content_type: str = "text/html", **headers: str) -> None:
        self.served.statuses[status] += 1
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def redirect(target: str, status: int = 302) -> Answer:
    return lambda handler: handler.say(status, Location=target)


def answers(status: int, body: bytes = b"", **headers: str) -> Answer:
    return lambda handler: handler.say(status, body or page("said"), **headers)


def in_turn(*each: Answer) -> Answer:
    """One answer after the other, the last one for ever."""
    left = list(each)

    def answer(handler: Handler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(handler)

    return answer


def hangs_up(handler: Handler) -> None:
    """Nothing at all: the connection ends."""
    handler.close_connection = True


def drips(handler: Handler) -> None:
    """A byte every tenth of a second, for ever; the first ones are the head."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX-Long: ")
    while True:
        handler.wfile.write(b"a")
        handler.wfile.flush()
        time.sleep(0.1)


def endless(handler: Handler) -> None:
    """A body that says no length and has no end."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.send_header("Connection", "close")
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


def claims(length: int) -> Answer:
    """A body that says it is that long."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(b"<p>the beginning")
        handler.close_connection = True

    return answer


def bomb(handler: Handler) -> None:
    """A few kilobytes that unpack to 64 MiB."""
    handler.say(200, gzip.compress(b"<p>" + b" " * (64 << 20), mtime=0), Content_Encoding="gzip")


def chunked(body: bytes) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(body), 50):
            piece = body[start : start + 50]
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    return answer
