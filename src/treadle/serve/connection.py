"""HTTP connections with limits on what a client may make one cost: httptools and uvicorn set none.

A head that grows without end or comes a byte at a time, chunks that say more of themselves than they hold, requests
sent ahead of every answer, connections that are opened and left: each would hold memory, or a file descriptor that the
journal needs, for as long as somebody likes.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from treadle.serve.client import CLOSE, EXTENSION, ClientLeft, Headers

HEAD_BYTES = 64 << 10
HEAD_SECONDS = 30.0
_PIECE = 16 << 10  # bytes that are parsed before it is looked at what came of them
_AHEAD = 64  # requests of one connection that wait for the answer before theirs
_FRAMING = 8  # bytes around each byte of a body: a chunk for every byte takes six
_SPARE_FILES = 256  # file descriptors that are left for everything but clients
_UPGRADE = (b"upgrade", b"http2-settings")
_NOT_IN_HEADERS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")


class Crowd:
    """All connections of a server, those in order that wait for a request of their client."""

    def __init__(self, most: int | None = None) -> None:
        """``most``: how many there may be; by default as many as this process may have files open, less a few."""
        self.most = _most_connections() if most is None else most
        self.here = 0
        self.idle: dict[BoundedConnection, None] = {}

    def came(self, connection: BoundedConnection) -> None:
        """A connection was opened. Beyond the most, the one that is idle longest has to go."""
        self.here += 1
        self.idle[connection] = None
        if self.here > self.most:
            next(iter(self.idle)).transport.abort()

    def left(self, connection: BoundedConnection) -> None:
        """It is closed."""
        self.here -= 1
        self.idle.pop(connection, None)


def bounded() -> Callable[..., BoundedConnection]:
    """What makes the connections of one server."""
    return functools.partial(BoundedConnection, crowd=Crowd())


class BoundedConnection(HttpToolsProtocol):
    """Counts what came beside bodies, and gives whatever is not the body of a request that is worked on a deadline."""

    def __init__(self, *given: Any, crowd: Crowd, **named: Any) -> None:
        super().__init__(*given, **named)
        self._crowd = crowd
        self._beside = 0  # bytes since the last request began that are no body
        self._framing = HEAD_BYTES  # so many there may be
        self._in_head = True
        self._timer: asyncio.TimerHandle | None = None
        self._answering: RequestResponseCycle | None = None
        self._client: HttpClient | None = None  # of that one

    @property
    def _busy(self) -> bool:
        """True while a request is worked on."""
        return self._answering is not None and not self._answering.response_complete

    def connection_made(self, transport: Any) -> None:
        """A client came; its first request's head is due."""
        super().connection_made(transport)
        self._crowd.came(self)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left, and every request it sent is told so."""
        self._crowd.left(self)
        self._no_timer()
        self._nobody_listens()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser a piece at a time, and look what came of it."""
        self._unset_keepalive_if_required()
        for start in range(0, len(data), _PIECE):
            if self.transport.is_closing():
                return
            piece = data[start : start + _PIECE]
            self._beside += len(piece)
            self._feed(piece)
            if self._beside > self._framing:
                self.send_400_response("The head of the request is too large.")
            elif len(self.pipeline) > _AHEAD:
                self.send_400_response("Too many requests were sent ahead of their answers.")
        if not self._busy and self._timer is None and self.timeout_keep_alive_task is None:
            self._wait()  # it was an empty line, or the rest of a body that nobody reads any more

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """No other protocol is spoken here, and a client that offers one goes on in HTTP/1.1; Java's own offers HTTP/2
        with its first request. The parser would drop that one's body, so it reads the head again without the offer."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.send_400_response("Invalid HTTP request received.")
            return
        lines = [b"%s: %s\r\n" % pair for pair in self.headers if pair[0] not in _UPGRADE]
        self.parser = httptools.HttpRequestParser(self)
        with suppress(AttributeError):  # httptools before 0.6.3
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed(b"".join([method, b" ", self.url, b" HTTP/1.1\r\n", *lines, b"\r\n", rest]))

    def on_message_begin(self) -> None:
        """The parser met a request's first byte."""
        super().on_message_begin()
        self._beside, self._framing = 0, HEAD_BYTES
        self._in_head = True
        self._no_timer()
        self._wait()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Behind a body it is a trailer, and of no use here: what stands there was not looked at when it was due."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole; the body has limits of its own."""
        if self.parser.should_upgrade():
            return
        self._no_timer()
        self._in_head = False
        self._crowd.idle.pop(self, None)
        busy = self._busy
        super().on_headers_complete()
        if not busy:
            self._answering = self.cycle

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._beside -= len(body)
        self._framing += _FRAMING * len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is on its way, and the next request's turn has come."""
        self._answering = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()
        if self._answering is None and not self.transport.is_closing():
            self._crowd.idle[self] = None

    def send_400_response(self, msg: str) -> None:
        """Say what was wrong and close; within an answer only the latter, for it would be taken for a part of it."""
        if self._busy:
            self._nobody_listens()
            self.transport.close()
        elif not self.transport.is_closing():
            super().send_400_response(msg)

    def _nobody_listens(self) -> None:
        """To every request that has no answer yet; uvicorn would tell the last of them alone."""
        waiting = [cycle for cycle, _ in self.pipeline]
        self.pipeline.clear()
        for cycle in [*waiting, *([self._answering] if self._answering is not None else [])]:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        if self._client is not None:
            self._client.left()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """A request's turn has come: the application may speak to its client directly, too."""
        self._client = HttpClient(cycle, self.flow)
        super()._start_asgi_task(cycle, functools.partial(_with_client, app, self._client))

    def _wait(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _no_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._busy:  # it was sent ahead, and an answer may take longer than that
            self._wait()
        else:
            self.send_400_response("The head of the request came too slowly.")


class HttpClient:
    """`client.Client` of one request of a connection."""

    def __init__(self, cycle: RequestResponseCycle, flow: FlowControl) -> None:
        self._cycle = cycle
        self._flow = flow
        self._waiting: dict[Callable[[], object], None] = {}

    def body(self) -> bytes | None:
        """As in `client.Client`."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected or cycle.waiting_for_100_continue:
            return None
        data, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        return data

    def on_leaving(self, call: Callable[[], object]) -> Callable[[], object]:
        """As in `client.Client`."""
        if self._cycle.disconnected:
            raise ClientLeft
        self._flow.resume_reading()  # where a large body paused it, nobody would hear of the end
        self._waiting[call] = None
        return functools.partial(self._waiting.pop, call, None)

    def left(self) -> None:
        """The connection is closed, or will be."""
        while self._cycle.disconnected and self._waiting:
            self._waiting.popitem()[0]()

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """As in `client.Client`, in one piece; waits where the client is slow to read what was sent before."""
        cycle = self._cycle
        if self._flow.write_paused and not cycle.disconnected:
            await self._flow.drain()
        if cycle.disconnected:
            return
        if CLOSE in headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            headers = [*headers, CLOSE]
        data = _written(status, [*cycle.default_headers, *headers], len(body))
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(data if cycle.scope["method"] == "HEAD" else data + body)
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


def _written(status: int, headers: Headers, length: int) -> bytes:
    lines = [b"%s: %s\r\n" % header for header in headers]
    text = b"".join(lines)
    if text.count(b"\n") != len(lines) or _NOT_IN_HEADERS.search(text):
        raise ValueError("a header that holds a line break, or what no header may")
    return b"%s%scontent-length: %d\r\n\r\n" % (STATUS_LINE[status], text, length)


def _with_client(app: Any, client: HttpClient, scope: Any, receive: Any, send: Any) -> Any:
    """Asked with a scope of its own: what the client holds leads to the server's, which must not lead back to it."""
    return app({**scope, "extensions": {EXTENSION: client}}, receive, send)


def _most_connections() -> int:
    """Raises this process's limit of open files as far as it may, and leaves some of them."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 1 << 20
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
            soft = max(soft, wanted)
    return max(soft - _SPARE_FILES, soft // 2)
