"""HTTP to servers that speak OpenAI's API: what is waited for how long, and what an answer that is none means.

The key goes to them and nowhere else: no redirect is followed, no proxy of the environment is used, and no error quotes
what a server said.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import quote, urlsplit

from treadle.core.errors import UserError
from treadle.lm.endpoint_address import key_of
from treadle.lm.upstream_address import Address, Code, TooLongError, UpstreamError
from treadle.lm.upstream_connection import BrokenError, Connection
from treadle.lm.upstream_settings import WHERE, UpstreamSettings
from treadle.lm.upstream_wire import GarbledError

EVENTS, JSON = b"text/event-stream", b"application/json"
_REFUSED = (400, 413, 415, 422)  # what is wrong with one request
_MISCONFIGURED = (401, 402, 403, 404, 405)  # what is wrong with address, key or model
_OPENING = 10.0  # seconds for a look at an address
_KEEPALIVE = 30.0  # seconds that a connection without a request stays open
_STALE = 1.0  # seconds without a request after which the server may be closing it just now
_LONGEST_RETRY_AFTER = 60.0  # seconds
_FINISH, _FINISH_PIECES = 0.5, 16  # seconds and pieces that what comes after an answer may take
_MOST_LISTED = 4 << 20  # bytes of a list of models
_MOST_OF_REFUSAL, _REFUSING = 1 << 16, 1.0  # bytes and seconds that a refusal may take
_IN_PATH = "/%:@!$&'()*+,;=~-._"
_TOO_LONG = (b"context_length_exceeded", b"exceed_context_size", b"maximum context length")


class Answer:
    """What a server says to one request; ``close`` it in any case."""

    def __init__(self, address: Address, connection: Connection, done: Callable[[str, Connection], None]) -> None:
        self._address = address
        self._connection = connection
        self._done = done

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._connection.status

    def header(self, name: bytes) -> bytes:
        """Of that name, in small letters; empty where it was not sent."""
        return self._connection.headers.get(name, b"")

    async def read(self) -> bytes:
        """The next piece of the body; empty at the end. Raises ``UpstreamError``."""
        try:
            return await self._connection.read()
        except TimeoutError:
            raise _late(self._address) from None
        except BrokenError as error:
            raise _gone(self._address, error) from None

    async def finish(self) -> None:
        """Read what is left where no more is expected, so that the connection can be used again."""
        if self._connection.over:
            return
        with suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(_FINISH):
                for _ in range(_FINISH_PIECES):
                    if not await self.read():
                        return

    def close(self) -> None:
        """Hang up, unless all of it was read."""
        self._done(self._address.url, self._connection)


class UpstreamClient:
    """One for each engine. ``key`` is what it sends, for those who see to it that it goes no further."""

    def __init__(self, settings: UpstreamSettings) -> None:
        """Raises ``UserError`` for a key or an address that is not there."""
        self._settings = settings
        self.key = key_of(settings.api_key, WHERE) if settings.api_key is not None else ""
        secure = any(urlsplit(url).scheme == "https" for url in settings.addresses())
        self._tls = ssl.create_default_context() if secure else None
        self._closed = False
        self._heads: dict[tuple[str, str, bytes], bytes] = {}
        self._all: set[Connection] = set()
        self._idle: dict[str, list[tuple[float, Connection]]] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    async def answer(
        self, address: Address, path: str, body: bytes, deadline: float, *, lacks: str = "", kind: bytes = EVENTS
    ) -> Answer:
        """To a POST, once it is known to be of that ``kind``. ``deadline`` is on the event loop's clock; ``lacks``:
        what is said of a server that has no such path, where it need not have it.

        Raises ``UpstreamError``, ``GarbledError``, and ``UserError`` for what is wrong with the request.
        """
        request = b"POST %s%d\r\n\r\n%s" % (self._head(address.url, path, kind), len(body), body)
        answer = await self._ask(address, request, deadline, self._settings.silence)
        try:
            if lacks and answer.status in (404, 405):
                raise UserError(lacks)
            if answer.status in _REFUSED and await _is_too_long(answer):
                raise TooLongError("The messages and the answer do not fit into the context; shorten them")
            _check_status(answer, address)
            if not answer.header(b"content-type").startswith(kind):
                raise GarbledError("no stream of events" if kind == EVENTS else "no JSON")
        except BaseException:
            answer.close()
            raise
        return answer

    async def context_length(self, address: Address) -> int:
        """What a server says that it has for the model, in tokens; 0 where it says nothing. Raises
        ``UpstreamError``."""
        request = b"GET %s0\r\n\r\n" % self._head(address.url, "/models", JSON)
        deadline = asyncio.get_running_loop().time() + _OPENING
        answer = await self._ask(address, request, deadline, _OPENING)
        data = bytearray()
        try:
            if answer.status in (401, 402, 403) or answer.status >= 500:
                _check_status(answer, address)
            while piece := await answer.read():
                data += piece
                if len(data) > _MOST_LISTED:
                    return 0
        finally:
            answer.close()
        return _length_in(bytes(data), self._settings.model)

    async def close(self) -> None:
        """Hang up everywhere, for good."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._idle.clear()
        await asyncio.sleep(0)  # the loop lets go of them in its next round

    def _head(self, url: str, path: str, kind: bytes) -> bytes:
        """All of a request between its method and the length of its body."""
        known = self._heads.get((url, path, kind))
        if known is None:
            parts = urlsplit(url)
            host = (parts.hostname or "").encode("idna").decode()
            place = f"[{host}]" if ":" in host else host
            target = quote(parts.path + path, safe=_IN_PATH)
            lines = [
                f"{target} HTTP/1.1",
                f"host: {place}:{parts.port}" if parts.port else f"host: {place}",
                f"accept: {kind.decode()}",
                "accept-encoding: identity",
                "content-type: application/json",
                "user-agent: treadle",
                *([f"authorization: Bearer {self.key}"] if self.key else []),
                "content-length: ",
            ]
            known = self._heads[url, path, kind] = "\r\n".join(lines).encode()
        return known

    async def _ask(self, address: Address, request: bytes, deadline: float, silence: float) -> Answer:
        """The head of an answer. One that was asked for while the server closed the connection for being idle is asked
        for again over another."""
        connection, stale = self._kept(address.url)
        while not self._closed:
            connection = connection or await self._connect(address, deadline)
            try:
                await connection.ask(request, deadline, silence)
            except BaseException as error:
                self._discard(connection)
                if stale and isinstance(error, BrokenError) and error.unheard:
                    connection, stale = None, False
                    continue
                if isinstance(error, TimeoutError):
                    raise _late(address) from None
                if isinstance(error, BrokenError):
                    raise _gone(address, error) from None
                raise
            return Answer(address, connection, self._done)
        raise _gone(address, BrokenError("hung up", unheard=True))

    async def _connect(self, address: Address, deadline: float) -> Connection:
        """A new one."""
        until = min(deadline, asyncio.get_running_loop().time() + self._settings.connect)
        try:
            async with asyncio.timeout_at(until):
                connection = await self._reached(address, until)
        except TimeoutError:
            raise _late(address) from None
        except (OSError, ValueError) as error:
            raise _gone(address, error) from None
        if self._closed:
            connection.close()
            raise _gone(address, BrokenError("hung up", unheard=True))
        self._all.add(connection)
        return connection

    async def _reached(self, address: Address, until: float) -> Connection:
        """Where a name has several addresses, the first that answers; each gets its share of the time."""
        loop, parts = asyncio.get_running_loop(), urlsplit(address.url)
        tls = self._tls if parts.scheme == "https" else None
        host, port = parts.hostname or "", parts.port or (443 if tls else 80)
        name = host if tls else None
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        *others, last = dict.fromkeys(str(each[4][0]) for each in found)
        for number, place in enumerate(others):
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout((until - loop.time()) / (len(others) + 1 - number)):
                    _, connection = await loop.create_connection(Connection, place, port, ssl=tls, server_hostname=name)
                return connection
        _, connection = await loop.create_connection(Connection, last, port, ssl=tls, server_hostname=name)
        return connection

    def _kept(self, url: str) -> tuple[Connection | None, bool]:
        """The connection that was used last of those that wait, and whether that is some time ago; the others may
        go."""
        idle = self._idle.get(url)
        while idle:
            since, connection = idle.pop()
            waited = asyncio.get_running_loop().time() - since
            if connection.is_open and waited < _KEEPALIVE:
                return connection, waited >= _STALE
            self._discard(connection)
        return None, False

    def _done(self, url: str, connection: Connection) -> None:
        if connection not in self._all:  # closed with all others
            return
        if not connection.release():
            self._all.discard(connection)
            return
        loop = asyncio.get_running_loop()
        self._idle.setdefault(url, []).append((loop.time(), connection))
        if self._sweeping is None:
            self._sweeping = loop.call_later(_KEEPALIVE, self._sweep)

    def _sweep(self) -> None:
        """Close what nobody used for long."""
        loop = asyncio.get_running_loop()
        now, self._sweeping = loop.time(), None
        for url, idle in self._idle.items():
            stay = [(since, each) for since, each in idle if each.is_open and now - since < _KEEPALIVE]
            for _, each in set(idle) - set(stay):
                self._discard(each)
            self._idle[url] = stay
        if any(self._idle.values()):
            self._sweeping = loop.call_later(_KEEPALIVE, self._sweep)

    def _discard(self, connection: Connection) -> None:
        self._all.discard(connection)
        connection.close()


async def _is_too_long(answer: Answer) -> bool:
    """Whether a refusal says so, by the codes and words that servers have for it."""
    data = bytearray()
    with suppress(UpstreamError, TimeoutError):
        async with asyncio.timeout(_REFUSING):
            while (piece := await answer.read()) and len(data) <= _MOST_OF_REFUSAL:
                data += piece
    return len(data) <= _MOST_OF_REFUSAL and any(word in data for word in _TOO_LONG)


def _check_status(answer: Answer, address: Address) -> None:
    """Raises for everything but 200. What the server says of it may quote the request, and is not read."""
    status = answer.status
    if status == 200:
        return
    if status in _REFUSED:
        raise UserError(f"the server that answers refuses this request ({status}): too long, or not to its liking")
    if status == 429:
        raise UpstreamError(f"{address.place} answered 429", "upstream_busy", _retry_after(answer))
    if status in _MISCONFIGURED or status < 400:
        said = f"{address.place} answered {status}; check urls, model and api_key of {WHERE}"
        raise UpstreamError(said, "upstream_misconfigured")
    code: Code = "upstream_timeout" if status in (408, 504) else "upstream_unavailable"
    raise UpstreamError(f"{address.place} answered {status}", code, _retry_after(answer))


def _retry_after(answer: Answer) -> float | None:
    value = answer.header(b"retry-after")
    if not (value.isdigit() and len(value) < 7):
        return None
    return min(float(value), _LONGEST_RETRY_AFTER)


def _late(address: Address) -> UpstreamError:
    return UpstreamError(f"{address.place} does not answer in time", "upstream_timeout")


def _gone(address: Address, error: Exception) -> UpstreamError:
    why = str(error) if isinstance(error, BrokenError) else type(error).__name__
    return UpstreamError(f"{address.place} does not answer ({why})", "upstream_unavailable")


def _length_in(data: bytes, model: str) -> int:
    try:
        listed = json.loads(data)["data"]
        lengths = [each.get("max_model_len") for each in listed if each.get("id") == model]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return 0
    return next((length for length in lengths if isinstance(length, int) and 0 < length < 1 << 40), 0)
