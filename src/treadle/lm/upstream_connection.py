"""One HTTP/1.1 connection to a server elsewhere, for one request after the other.

Clients made for everything take a large part of what the gateway adds to a request. Here a request is bytes that are
mostly known beforehand, and its answer goes from httptools to whoever waits for it.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from treadle.core.errors import MissingExtra

try:
    import httptools
except ModuleNotFoundError:
    raise MissingExtra("httptools", extra="serve") from None

_HEAD_BYTES = 64 << 10  # that a head may have
_AHEAD_BYTES = 256 << 10  # of an answer that nobody read yet; then the server has to wait


class BrokenError(Exception):
    """The connection ended in the middle, or what came is no HTTP. ``unheard``: nothing of an answer came."""

    def __init__(self, message: str, *, unheard: bool) -> None:
        super().__init__(message)
        self.unheard = unheard


class Connection(asyncio.Protocol):
    """``ask``, then ``read`` until it is ``over``; ``release`` says whether it can be asked again.

    ``status`` and ``headers``, whose names are in small letters, are of the answer that is read.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.over = True
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._waiting: asyncio.Future[None] | None = None
        self._deadline = self._silence = 0.0
        self._asked = self._headed = self._keeps = self._paused = False
        self._bytes = 0  # of the head, then of what nobody read yet
        self._beside = 0  # bytes of something else since the last of the body
        self._ended = False  # the other side says no more
        self._error: BrokenError | None = None

    async def ask(self, request: bytes, deadline: float, silence: float) -> None:
        """Send it and wait for the head of its answer. ``deadline`` is on the loop's clock, for all of the answer;
        ``silence``: seconds without a byte. Raises ``BrokenError`` and ``TimeoutError``."""
        self.headers, self.over, self._headed, self._asked = {}, False, False, True
        self._bytes = self._beside = 0
        self._deadline, self._silence = deadline, silence
        if self._transport is None or self._transport.is_closing():
            raise BrokenError("hung up", unheard=True)
        self._transport.write(request)
        while not self._headed:
            await self._more()

    async def read(self) -> bytes:
        """What came since; empty at the end. Raises as `ask`."""
        while not self._pieces and not self.over:
            await self._more()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._let_go()
        return data

    def release(self) -> bool:
        """Whether it can be asked again; it is closed otherwise."""
        if self.over and self._keeps and self.is_open and self._is_written:
            self._let_go()  # of an answer that nobody read: the next must not begin with it
            self._asked = False
            return True
        self.close()
        return False

    @property
    def is_open(self) -> bool:
        """Whether neither side hung up."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def _is_written(self) -> bool:
        """Whether all of the request went out; an answer may come before."""
        return self._transport is not None and not self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Hang up; what was not read is lost."""
        if self._transport is not None:
            self._transport.abort()

    def _let_go(self) -> None:
        self._pieces.clear()
        self._bytes = 0
        if self._paused and self.is_open and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiting = waiting = self._loop.create_future()
        until = min(self._deadline, self._loop.time() + self._silence)
        alarm = self._loop.call_at(until, _in_vain, waiting)
        try:
            await waiting
        finally:
            alarm.cancel()
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _break(self, why: str) -> None:
        self._keeps = False
        if self._error is None:
            self._error = BrokenError(why, unheard=not self._headed and not self._bytes)
        self.close()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Some bytes of the answer, or of what nobody asked for."""
        if not self._asked:
            self._break("speaks without being asked")
            return
        before = self._bytes
        if not self._headed:
            self._bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._break("speaks no HTTP")
        self._beside = self._beside + len(data) if self._headed and self._bytes == before else 0
        if (not self._headed and self._bytes > _HEAD_BYTES) or self._beside > _HEAD_BYTES:
            self._break("sends a head without end")
        elif self._bytes > _AHEAD_BYTES and not self._paused and self.is_open and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """The other side says no more. Where it does not listen any more either, what is written goes nowhere."""
        self._ended = True
        if not self.over and not self._is_written:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended, which is how an answer ends that does not say how long it is."""
        if self._asked and not self.over:
            length = b"content-length" in self.headers or b"transfer-encoding" in self.headers
            if self._headed and not length and self._ended and exc is None and self._error is None:
                self.over = True
            else:
                self._break("hung up")
        self._keeps = False
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """An answer begins: the one asked for, or after it one that was not."""
        if self.over:
            self._break("speaks without being asked")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One line of the head, or of what comes after the body."""
        if not self._headed:
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is there; one that only announces another is forgotten."""
        if self.over:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = {}
            return
        self._headed, self._bytes = True, 0

    def on_body(self, body: bytes) -> None:
        """A piece of it."""
        if not self.over:
            self._pieces.append(body)
            self._bytes += len(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._headed and not self.over:
            self.over, self._keeps = True, self._parser.should_keep_alive()


def _in_vain(waiting: asyncio.Future[Any]) -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError())
