"""HTTP to servers that speak OpenAI's API: what is waited for how long, and what an answer that is none means.

The key goes to them and nowhere else: no redirect is followed, no proxy of the environment is used, and no error quotes
what a server said.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from treadle.core.errors import MissingExtra, UserError
from treadle.lm.endpoint_address import key_of, no_address
from treadle.lm.upstream_address import Address, Code, TooLongError, UpstreamError
from treadle.lm.upstream_settings import WHERE, UpstreamSettings
from treadle.lm.upstream_wire import GarbledError

if TYPE_CHECKING:
    import httpx

EVENTS, JSON = "text/event-stream", "application/json"
_REFUSED = (400, 413, 415, 422)  # what is wrong with one request
_MISCONFIGURED = (401, 402, 403, 404, 405)  # what is wrong with address, key or model
_OPENING = 10.0  # seconds for a look at an address
_LONGEST_RETRY_AFTER = 60.0  # seconds
_FINISH, _FINISH_PIECES = 0.5, 16  # seconds and pieces that what comes after an answer may take
_MOST_LISTED = 4 << 20  # bytes of a list of models
_MOST_OF_REFUSAL = 1 << 16  # bytes
_TOO_LONG = (b"context_length_exceeded", b"exceed_context_size", b"maximum context length")


class UpstreamClient:
    """One for each engine. ``key`` is what it sends, for those who see to it that it goes no further."""

    def __init__(self, settings: UpstreamSettings) -> None:
        """Raises ``UserError`` for an address that is none, and a key that is not there."""
        try:
            import httpx
        except ImportError:
            raise MissingExtra("httpx", extra="serve") from None
        self._settings = settings
        self.key = key_of(settings.api_key, WHERE) if settings.api_key is not None else ""
        for url in settings.addresses():
            try:
                _ = httpx.URL(url).host
            except (httpx.InvalidURL, UnicodeError):
                raise no_address(WHERE) from None
        headers = {"User-Agent": "treadle", "Accept-Encoding": "identity"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(None, connect=settings.connect),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=30.0),
            follow_redirects=False,
            trust_env=False,
        )

    @asynccontextmanager
    async def answer(
        self, address: Address, path: str, body: bytes, deadline: float, *, lacks: str = "", kind: str = EVENTS
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of an answer, once it is known to be of that ``kind``; leaving hangs up. ``deadline`` is on the
        event loop's clock; ``lacks``: what is said of a server that has no such path, where it need not have it.

        Raises ``UpstreamError``, ``GarbledError``, and ``UserError`` for what is wrong with the request.
        """
        import httpx

        headers = {"content-type": "application/json", "accept": kind}
        asked = self._http.build_request("POST", address.url + path, content=body, headers=headers)
        try:
            async with asyncio.timeout(self._patience(deadline)):
                response = await self._http.send(asked, stream=True)
        except (TimeoutError, httpx.TimeoutException):
            raise _late(address) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _gone(address, error) from None
        try:
            if lacks and response.status_code in (404, 405):
                raise UserError(lacks)
            if response.status_code in _REFUSED and await self._is_too_long(address, response, deadline):
                raise TooLongError("The messages and the answer do not fit into the context; shorten them")
            _check_status(response, address)
            if not response.headers.get("content-type", "").startswith(kind):
                raise GarbledError("no stream of events" if kind == EVENTS else "no JSON")
            yield self._pieces(address, response, deadline)
        finally:
            await response.aclose()

    async def _is_too_long(self, address: Address, response: httpx.Response, deadline: float) -> bool:
        """Whether a refusal says so, by the codes and words that servers have for it."""
        data = bytearray()
        with suppress(UpstreamError):
            async for piece in self._pieces(address, response, min(deadline, asyncio.get_running_loop().time() + 1)):
                data += piece
                if len(data) > _MOST_OF_REFUSAL:
                    return False
        return any(word in data for word in _TOO_LONG)

    async def _pieces(self, address: Address, response: httpx.Response, deadline: float) -> AsyncGenerator[bytes]:
        import httpx

        source = response.aiter_raw()
        while True:
            try:
                async with asyncio.timeout(self._patience(deadline)):
                    piece = await anext(source, None)
            except (TimeoutError, httpx.TimeoutException):
                raise _late(address) from None
            except httpx.HTTPError as error:
                raise _gone(address, error) from None
            if piece is None:
                return
            yield piece

    def _patience(self, deadline: float) -> float:
        """Seconds until the next byte has to be there."""
        return max(0.0, min(self._settings.silence, deadline - asyncio.get_running_loop().time()))

    async def context_length(self, address: Address) -> int:
        """What a server says that it has for the model, in tokens; 0 where it says nothing. Raises
        ``UpstreamError``."""
        import httpx

        data = bytearray()
        try:
            async with (
                asyncio.timeout(_OPENING),
                self._http.stream("GET", f"{address.url}/models", headers={"accept": "application/json"}) as response,
            ):
                if response.status_code in (401, 402, 403) or response.status_code >= 500:
                    _check_status(response, address)
                async for piece in response.aiter_raw():
                    data += piece
                    if len(data) > _MOST_LISTED:
                        return 0
        except (TimeoutError, httpx.TimeoutException):
            raise _late(address) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _gone(address, error) from None
        return _length_in(bytes(data), self._settings.model)

    async def close(self) -> None:
        """Hang up everywhere."""
        await self._http.aclose()


async def finish(data: AsyncIterator[bytes]) -> None:
    """Read what is left of a body that is over, so that the connection can be used again."""
    with suppress(UpstreamError, TimeoutError):
        async with asyncio.timeout(_FINISH):
            for _ in range(_FINISH_PIECES):
                if await anext(data, None) is None:
                    return


def _check_status(response: httpx.Response, address: Address) -> None:
    """Raises for everything but 200. What the server says of it may quote the request, and is not read."""
    status = response.status_code
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


def _retry_after(response: httpx.Response) -> float | None:
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
