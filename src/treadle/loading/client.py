"""The client: requests at their own times over connections that stay open, with as little work as that can take.

Open loop: a request goes out when it is due, whatever became of those before it, and its time counts from then. A
client that waits for an answer before it asks again would ask least when the server is slowest, and not see it.
"""

from __future__ import annotations

import asyncio
import ssl
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from urllib.parse import urlsplit

from treadle.core.errors import UserError
from treadle.loading.response import BadResponse, Response

TIMEOUT = 600.0  # seconds for an answer
_CONNECT = 30.0
_SOCKETS = 900  # connections at once; what is due beyond them waits, and its time counts


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to be sent ``at`` seconds after the start; ``data`` is its body."""

    at: float
    data: bytes


@dataclass(slots=True)
class Answered:
    """What came of one; times in seconds since the start. ``due`` is when it was to be sent, ``first`` when the first
    text came. ``error`` is a few words, the same for the same kind; ``gaps`` are the seconds between pieces of text."""

    due: float
    sent: float = 0.0
    first: float | None = None
    ended: float = 0.0
    status: int = 0
    error: str | None = None
    prompt_tokens: int = 0
    answer_tokens: int = 0
    release: str | None = None
    retry_after: int | None = None
    gaps: array[float] = field(default_factory=lambda: array("d"))
    text: str | None = None

    @property
    def ttft(self) -> float:
        """Until the first text, or until the end of an answer without any."""
        return (self.ended if self.first is None else self.first) - self.due

    @property
    def total(self) -> float:
        """Until the end."""
        return self.ended - self.due


class Target:
    """Where requests go: one path of one server."""

    def __init__(self, url: str, path: str, key: str | None = None) -> None:
        """Raises ``UserError`` for what is no address."""
        try:
            parts = urlsplit(url)
            self.host, port = parts.hostname or "", parts.port
        except ValueError:
            parts, self.host, port = urlsplit(""), "", None
        good = parts.scheme in ("http", "https") and self.host and "@" not in parts.netloc and url.isprintable()
        if not good or " " in url or parts.query or parts.fragment:
            raise UserError(f"{url!r}: expected an address such as http://127.0.0.1:8000, without a login in it")
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        self.port = port or (443 if self.tls else 80)
        base = parts.path.rstrip("/")
        if base.endswith("/v1") and path.startswith("/v1"):
            base = base.removesuffix("/v1")
        authorization = f"authorization: Bearer {key}\r\n" if key else ""
        self._head = (
            f"POST {base}{path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
            f"accept: */*\r\n{authorization}content-length: "
        ).encode()

    def request(self, data: bytes) -> bytes:
        """The bytes of one request."""
        return b"%s%d\r\n\r\n%s" % (self._head, len(data), data)


class _Connection(asyncio.Protocol):
    """One request at a time; ``over`` is set when its answer is whole or the connection is lost."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.response = Response()
        self.over: asyncio.Future[None] | None = None
        self.lost = False
        self.used = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio calls it."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, data: bytes) -> asyncio.Future[None]:
        """Send a request."""
        assert self.transport is not None
        self.response = Response()
        self.over = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self.over

    def data_received(self, data: bytes) -> None:
        """A piece of the answer."""
        try:
            self.response.feed(data, perf_counter())
        except BadResponse:
            self.close()
        if self.response.done or self.lost:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """What had not come by now does not come."""
        self.lost = True
        self.response.end()
        self._end()

    def close(self) -> None:
        """Nobody reads this any more."""
        self.lost = True
        if self.transport is not None:
            self.transport.abort()

    def _end(self) -> None:
        if self.over is not None and not self.over.done():
            self.over.set_result(None)


class Client:
    """Sends to one target. Made and used in one event loop."""

    def __init__(self, target: Target, *, timeout: float = TIMEOUT, keep_text: bool = False) -> None:
        self._target = target
        self._timeout = timeout
        self._keep_text = keep_text
        self._idle: list[_Connection] = []
        self._room = asyncio.Semaphore(_SOCKETS)
        self._began = perf_counter()

    async def replay(
        self, asked: Sequence[Asked], on_answer: Callable[[Answered], None] | None = None
    ) -> list[Answered]:
        """Send each when it is due; the answers, in the same order."""
        self._began = perf_counter()
        tasks = []
        for each in asked:
            if (wait := each.at - (perf_counter() - self._began)) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(self._one(each.data, each.at, on_answer)))
        return list(await asyncio.gather(*tasks))

    async def hold(
        self,
        make: Callable[[], bytes | None],
        at_once: int,
        on_answer: Callable[[Answered], None] | None = None,
        *,
        apart: float = 0.0,
    ) -> list[Answered]:
        """Keep ``at_once`` requests going, each begun when one before it ended, until ``make`` gives none; the first of
        them begin so many seconds ``apart``."""
        self._began = perf_counter()
        found: list[Answered] = []

        async def one_after_another(wait: float) -> None:
            await asyncio.sleep(wait)
            while (data := make()) is not None:
                answered = await self._one(data, perf_counter() - self._began, on_answer)
                found.append(answered)
                if answered.error is not None:  # one that refuses at once is not asked in a spin
                    await asyncio.sleep(min(answered.retry_after or 0.05, 1.0))

        await asyncio.gather(*(one_after_another(number * apart) for number in range(at_once)))
        return found

    async def ask(self, data: bytes) -> Answered:
        """Send one now."""
        return await self._one(data, perf_counter() - self._began, None)

    async def close(self) -> None:
        """Close the connections."""
        for each in self._idle:
            each.close()
        self._idle.clear()
        await asyncio.sleep(0)

    async def _one(self, data: bytes, due: float, on_answer: Callable[[Answered], None] | None) -> Answered:
        answered = Answered(due)
        connection: _Connection | None = None
        async with self._room:
            try:
                async with asyncio.timeout(self._timeout):
                    connection = await self._exchange(self._target.request(data), answered)
            except TimeoutError:
                answered.error = "no answer in time"
            except ssl.SSLError:
                answered.error = "no secure connection"
            except OSError as error:
                refused = isinstance(error, ConnectionRefusedError)
                answered.error = "connection refused" if refused else "no connection"
        answered.ended = perf_counter() - self._began
        if connection is not None:
            self._read(connection.response, answered)
            if connection.response.done and connection.response.keeps and not connection.lost:
                self._idle.append(connection)
            else:
                connection.close()
        if on_answer is not None:
            on_answer(answered)
        return answered

    async def _exchange(self, request: bytes, answered: Answered) -> _Connection:
        while True:
            connection = await self._connection()
            reused, connection.used = connection.used, True
            answered.sent = perf_counter() - self._began
            try:
                await connection.ask(request)
            except asyncio.CancelledError:
                connection.close()
                raise
            # A server may close an idle connection just as it is used again: nothing came, so it is asked anew.
            if not (reused and connection.lost and not connection.response.begun):
                return connection

    async def _connection(self) -> _Connection:
        while self._idle:
            if not (found := self._idle.pop()).lost:
                return found
        target = self._target
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT):
            _, connection = await loop.create_connection(_Connection, target.host, target.port, ssl=target.tls)
        return connection

    def _read(self, response: Response, answered: Answered) -> None:
        answered.status = response.status
        if not response.done:
            answered.error = "connection lost" if not response.status else "stream broke off"
        else:
            answered.error = response.problem(streamed=True)
        words = response.words
        if answered.error is None or words:
            if words:
                answered.first = words[0] - self._began
                answered.gaps = array("d", (words[i] - words[i - 1] for i in range(1, len(words))))
            answered.prompt_tokens = response.counted("prompt_tokens") or 0
            answered.answer_tokens = response.counted("completion_tokens") or len(words)
            answered.release = response.release()
            if self._keep_text:
                with suppress(ValueError):
                    answered.text = response.said()
        answered.retry_after = response.retry_after()
