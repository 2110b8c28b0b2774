"""HTTP to servers that speak OpenAI's API: what is waited for how long, and what an answer that is none means.

The key goes to them and nowhere else: no redirect is followed, no proxy of the environment is used, and no error quotes
what a server said.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from treadle.core.errors import MissingExtra, UserError
from treadle.lm.endpoint_address import key_of
from treadle.lm.upstream_address import Address, Code, TooLongError, UpstreamError
from treadle.lm.upstream_settings import WHERE, UpstreamSettings
from treadle.lm.upstream_wire import GarbledError

if TYPE_CHECKING:
    import aiohttp

EVENTS, JSON = "text/event-stream", "application/json"
_REFUSED = (400, 413, 415, 422)  # what is wrong with one request
_MISCONFIGURED = (401, 402, 403, 404, 405)  # what is wrong with address, key or model
_OPENING = 10.0  # seconds for a look at an address
_KEEPALIVE = 30.0  # seconds that a connection without a request stays open
_LONGEST_RETRY_AFTER = 60.0  # seconds
_FINISH, _FINISH_PIECES = 0.5, 16  # seconds and pieces that what comes after an answer may take
_MOST_LISTED = 4 << 20  # bytes of a list of models
_MOST_OF_REFUSAL, _REFUSING = 1 << 16, 1.0  # bytes and seconds that a refusal may take
_TOO_LONG = (b"context_length_exceeded", b"exceed_context_size", b"maximum context length")


class Body:
    """What a server says after its head, as it comes."""

    def __init__(self, address: Address, response: aiohttp.ClientResponse) -> None:
        self._address = address
        self._content = response.content

    async def read(self) -> bytes:
        """The next piece; empty at the end. Raises ``UpstreamError``."""
        import aiohttp

        try:
            return await self._content.readany()
        except TimeoutError:
            raise _late(self._address) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _gone(self._address, error) from None

    async def finish(self) -> None:
        """Read what is left where no more is expected, so that the connection can be used again."""
        if self._content.is_eof():
            return
        with suppress(UpstreamError, TimeoutError):
            async with asyncio.timeout(_FINISH):
                for _ in range(_FINISH_PIECES):
                    if not await self.read():
                        return


class UpstreamClient:
    """One for each engine. ``key`` is what it sends, for those who see to it that it goes no further."""

    def __init__(self, settings: UpstreamSettings) -> None:
        """Made in the event loop that uses it. Raises ``UserError`` for a key that is not there."""
        try:
            import aiohttp
        except ImportError:
            raise MissingExtra("aiohttp", extra="serve") from None
        self._settings = settings
        self.key = key_of(settings.api_key, WHERE) if settings.api_key is not None else ""
        headers = {"user-agent": "treadle", "accept-encoding": "identity"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        self._http = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(_OPENING, settings.connect),
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    @asynccontextmanager
    async def answer(
        self, address: Address, path: str, body: bytes, deadline: float, *, lacks: str = "", kind: str = EVENTS
    ) -> AsyncIterator[Body]:
        """The body of an answer, once it is known to be of that ``kind``; leaving hangs up. ``deadline`` is on the
        event loop's clock; ``lacks``: what is said of a server that has no such path, where it need not have it.

        Raises ``UpstreamError``, ``GarbledError``, and ``UserError`` for what is wrong with the request.
        """
        import aiohttp

        headers = {"content-type": "application/json", "accept": kind}
        url, patience = address.url + path, self._patience(deadline)
        try:
            response = await self._http.post(url, data=body, headers=headers, allow_redirects=False, timeout=patience)
        except TimeoutError:
            raise _late(address) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _gone(address, error) from None
        said = Body(address, response)
        try:
            if lacks and response.status in (404, 405):
                raise UserError(lacks)
            if response.status in _REFUSED and await _is_too_long(said):
                raise TooLongError("The messages and the answer do not fit into the context; shorten them")
            _check_status(response, address)
            if not response.headers.get("content-type", "").startswith(kind):
                raise GarbledError("no stream of events" if kind == EVENTS else "no JSON")
            yield said
            await said.finish()
        finally:
            response.close()  # where all of the answer was read, the connection is used again

    def _patience(self, deadline: float) -> aiohttp.ClientTimeout:
        """How long is waited: for a connection, from byte to byte, and for all of it."""
        import aiohttp

        left = max(1e-3, deadline - asyncio.get_running_loop().time())  # 0 would be for ever
        return aiohttp.ClientTimeout(left, self._settings.connect, self._settings.silence, ceil_threshold=left + 1)

    async def context_length(self, address: Address) -> int:
        """What a server says that it has for the model, in tokens; 0 where it says nothing. Raises
        ``UpstreamError``."""
        import aiohttp

        data = bytearray()
        url, headers = f"{address.url}/models", {"accept": JSON}
        try:
            async with self._http.get(url, headers=headers, allow_redirects=False) as response:
                if response.status in (401, 402, 403) or response.status >= 500:
                    _check_status(response, address)
                async for piece in response.content.iter_any():
                    data += piece
                    if len(data) > _MOST_LISTED:
                        return 0
        except TimeoutError:
            raise _late(address) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _gone(address, error) from None
        return _length_in(bytes(data), self._settings.model)

    async def close(self) -> None:
        """Hang up everywhere."""
        await self._http.close()


async def _is_too_long(body: Body) -> bool:
    """Whether a refusal says so, by the codes and words that servers have for it."""
    data = bytearray()
    with suppress(UpstreamError, TimeoutError):
        async with asyncio.timeout(_REFUSING):
            while (piece := await body.read()) and len(data) <= _MOST_OF_REFUSAL:
                data += piece
    return len(data) <= _MOST_OF_REFUSAL and any(word in data for word in _TOO_LONG)


def _check_status(response: aiohttp.ClientResponse, address: Address) -> None:
    """Raises for everything but 200. What the server says of it may quote the request, and is not read."""
    status = response.status
    if status == 200:
        return
    if status in _REFUSED:
        raise UserError(f"the server that answers refuses this request ({status}): too long, or not to its liking")
    if status == 429:
        raise UpstreamError(f"{address.place} answered 429", "upstream_busy", _retry_after(response))
    if status in _MISCONFIGURED or status < 400:
        said = f"{address.place} answered {status}; check urls, model and api_key of {WHERE}"
        raise UpstreamError(said, "upstream_misconfigured")
    code: Code = "upstream_timeout" if status in (408, 504) else "upstream_unavailable"
    raise UpstreamError(f"{address.place} answered {status}", code, _retry_after(response))


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    value = response.headers.get("retry-after", "")
    if not (value.isascii() and value.isdigit() and len(value) < 7):
        return None
    return min(float(value), _LONGEST_RETRY_AFTER)


def _late(address: Address) -> UpstreamError:
    return UpstreamError(f"{address.place} does not answer in time", "upstream_timeout")


def _gone(address: Address, error: Exception) -> UpstreamError:
    return UpstreamError(f"{address.place} does not answer ({type(error).__name__})", "upstream_unavailable")


def _length_in(data: bytes, model: str) -> int:
    try:
        listed = json.loads(data)["data"]
        lengths = [each.get("max_model_len") for each in listed if each.get("id") == model]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return 0
    return next((length for length in lengths if isinstance(length, int) and 0 < length < 1 << 40), 0)
