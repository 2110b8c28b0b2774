"""One HTTP request as the handlers see it: its body within limits, its client's leaving, its answer's bytes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from starlette.types import Message, Receive, Scope, Send

from treadle.core.identifiers import new_id
from treadle.record.interaction import Tokens
from treadle.serve.client import ClientLeft, Headers, client_of
from treadle.serve.entry import catch_up
from treadle.serve.errors import FAILED_OVER, SERVER, ApiError
from treadle.serve.gateway import Gateway, current_task
from treadle.serve.meter import Meter
from treadle.serve.release import Serving
from treadle.serve.table import Chosen

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_BODIES = 64  # of the largest size, that may be here in part at once
_PASSED_OVER = 64 << 20  # bytes of a body that is too large, before the connection is closed on it


class Incoming:
    """``request`` is the client's ``x-request-id`` where that is well formed. ``status`` is what was answered,
    ``failed`` the code of what went wrong. ``given``: the body, where it was read already. ``told`` makes of an error
    what its client can read.

    ``model``: the one that is asked. ``chosen``: the release that is to answer, ``answered_by`` the one that did.
    ``interaction`` is the last that it became; ``instead_of`` the one that failed, where another release answers;
    ``copy_of`` the one that it repeats in the background. ``stored``: its text may be kept. ``size``: of its body.
    ``in_vain``: what came with it failed, so nobody gets its answer or pays for it."""

    def __init__(self, gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
        self.arrived = time.perf_counter()
        self.gateway = gateway
        self.model = gateway.first
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.meter: Meter | None = None
        self.status = 0
        self.failed: str | None = None
        self.given: bytes | None = None
        self.told: Callable[[ApiError], Any] = ApiError.body
        self.chosen: Chosen | None = None
        self.answered_by: Serving | None = None
        self.interaction: str | None = None
        self.instead_of: str | None = None
        self.copy_of: str | None = None
        self.stored = True
        self.in_vain = False
        self.size = 0
        self._receive = receive
        self._send = send
        self._client = client_of(scope, receive, send)
        given = self.headers.get(b"x-request-id", b"")
        self.request = given.decode() if _REQUEST_ID.match(given) else new_id("req")

    @property
    def key(self) -> str | None:
        """The id of the caller's key."""
        return None if self.meter is None else self.meter.key.id

    def header(self, name: str) -> str | None:
        """A header's value, the last where it came more than once."""
        value = self.headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    async def body(self) -> bytes:
        """The whole body. Raises 413 over the limit, 408 when it does not come in time, 503 where too many come at
        once, ``ClientLeft``."""
        if self.given is not None:
            return self.given
        settings = self.gateway.settings
        limit = settings.max_body_bytes
        deadline = time.perf_counter() + settings.body_seconds
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared[:20]) > limit:
            raise await self._too_large(deadline, more=b"expect" not in self.headers)
        whole = self._client.body()
        if whole is not None:
            if len(whole) > limit:
                raise await self._too_large(deadline, more=False)
            self.size = len(whole)
            return whole
        message = await self._next(settings.body_seconds)
        if not message.get("more_body") and len(message["body"]) <= limit:  # nearly always it comes in one piece
            self.size = len(message["body"])
            return bytes(message["body"])
        data = bytearray(message["body"])
        self.gateway.arriving += len(data)
        try:
            while message.get("more_body") and len(data) <= limit:
                if self.gateway.arriving > _BODIES * limit:
                    raise ApiError(
                        503, "Too many large requests arrive at once; try again", type=SERVER, code="too_many_bodies",
                        retry_after=1,
                    )  # fmt: skip
                message = await self._next(deadline - time.perf_counter())
                data += message["body"]
                self.gateway.arriving += len(message["body"])
        finally:
            self.gateway.arriving -= len(data)
        if len(data) > limit:
            raise await self._too_large(deadline, more=bool(message.get("more_body")))
        self.size = len(data)
        return bytes(data)

    async def _too_large(self, deadline: float, *, more: bool) -> ApiError:
        """What to answer, once the rest was passed over: a client that still sends would not read the answer, and
        would lose it with the connection."""
        passed = 0
        with suppress(ApiError):
            while more and passed < _PASSED_OVER:
                message = await self._next(deadline - time.perf_counter())
                passed += len(message["body"])
                more = bool(message.get("more_body"))
        limit = self.gateway.settings.max_body_bytes
        return ApiError(413, f"The body is larger than {limit} bytes", code="request_too_large")

    async def _next(self, seconds: float) -> Message:
        try:
            async with asyncio.timeout(seconds):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, "The body did not arrive in time", code="timeout") from None
        if message["type"] == "http.disconnect":
            raise ClientLeft
        return message

    def choose(self, model: str | None, user: str | None) -> Chosen:
        """What answers; a key that is for some models gets the first of them where it asks for none. Raises 404,
        503."""
        asked = self.asked(model)
        self.model = self.gateway.model_of(asked)
        return self.model.choose(asked, self._drawn_by(user))

    def asked(self, model: str | None) -> str | None:
        """What is asked for by a request that names this model or, with None, leaves it to its key."""
        if model is None and self.meter is not None and self.meter.key.rules.models:
            return self.meter.key.rules.models[0]
        return model

    def _drawn_by(self, user: str | None) -> str | None:
        """What sticks to a release, as the model's project says; the user where the request has nothing of that."""
        sticky = self.model.sticky
        if sticky == "user":
            return user
        return (self.key if sticky == "key" else self.header(sticky)) or user

    def other(self, error: ApiError) -> Serving | None:
        """The release to be asked after this error; None where there is none, or it is not for this."""
        chosen, other = self.chosen, self.model.table.fallback
        if chosen is None or other is None or error.code not in FAILED_OVER or self.status or chosen.share is None:
            return None
        if other.engine is chosen.serving.engine or other.release.asking != chosen.serving.release.asking:
            return None
        return other if may_use(self.meter, other) else None

    def check(self, serving: Serving, endpoint: str) -> None:
        """Raises 403 where the key is not for that."""
        if self.meter is not None:
            check_endpoint(self.meter, endpoint)
            check_model(self.meter, serving)

    @asynccontextmanager
    async def working(self, serving: Serving, endpoint: str) -> AsyncIterator[None]:
        """Hold a place with a release and a deadline, and stop when the client leaves; ``endpoint`` is what is done,
        by whatever path it was asked for.

        Call it when the body was read. Raises 401, 403, 429, 503, 504 and ``ClientLeft``.
        """
        self.check(serving, endpoint)
        catch_up(self.gateway, self.model)
        gateway, task = self.gateway, current_task()
        seconds = gateway.settings.request_seconds
        with gateway.place(serving, self.key):
            watched = self._client.on_leaving(lambda: gateway.end(task, ClientLeft()))
            late = asyncio.get_running_loop().call_later(seconds, lambda: gateway.end(task, _too_late(seconds)))
            try:
                yield
            finally:
                watched()
                late.cancel()

    @asynccontextmanager
    async def metered(self, serving: Serving, most: Tokens, used: Callable[[], Tokens | None]) -> AsyncIterator[None]:
        """Reserve the ``most`` that this may use of the caller's limits, and settle what ``used`` says in the end,
        however it ends; None where it never reached the engine. Raises 403, 429, 503."""
        meter = self.meter
        if meter is None:
            yield
            return
        price = serving.release.price
        if price is None and any(limit.what == "money" for limit in meter.key.rules.limits):
            raise ApiError(
                403, f"This key has a budget in money, and {serving.release.name} has no price; set deploy.price",
                code="no_price",
            )  # fmt: skip
        reservation = await meter.reserve(most.prompt + most.completion, price.nano(most) if price else 0)
        try:
            yield
        except ApiError as error:
            error.counted = used() is not None
            raise
        finally:
            spent = None if self.in_vain else used()
            if spent is None:
                meter.cancel(reservation)
            else:
                money = price.nano(spent) if price else 0
                meter.settle(reservation, spent.prompt + spent.completion, money)

    async def counted(self, error: ApiError) -> ApiError:
        """What to answer to a request that is wrong in itself: that, once it was counted as one request of its key, or
        that the key has none left."""
        wrong = 400 <= error.status < 500 and error.status not in (401, 429)
        if self.meter is None or error.counted or not wrong:
            return error
        try:
            reservation = await self.meter.reserve(0, 0)
        except ApiError as refused:
            return refused
        self.meter.settle(reservation, 0, 0)
        return error

    async def start(self, status: int, headers: Headers) -> None:
        """Send the status line and the headers of an answer that comes in pieces."""
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": self._with_own(headers)})

    async def write(self, data: bytes, *, more: bool) -> None:
        """Send a piece of the body; waits while the client is slow to read."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def reply(self, content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Send a JSON document and end."""
        await self.reply_bytes(msgspec.json.encode(content), "application/json", status=status, headers=headers)

    async def reply_bytes(
        self, data: bytes, kind: str, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Send bytes of a media type and end."""
        known = [(b"content-type", kind.encode())]
        if headers:
            known += [(name.encode(), value.encode()) for name, value in headers.items()]
        self.status = status
        await self._client.answer(status, self._with_own(known), data)

    def _with_own(self, headers: Headers) -> Headers:
        """With those that every answer has."""
        own = [*headers, (b"x-request-id", self.request.encode())]
        if self.meter is not None and self.meter.key.rules.limits:
            own += self.meter.headers()
        return own

    async def refuse(self, error: ApiError) -> None:
        """Send an error and end."""
        await self.reply(self.told(error), status=error.status, headers=error.headers())


def _too_late(seconds: float) -> ApiError:
    return ApiError(504, f"The answer took longer than {seconds:g} seconds", type=SERVER, code="timeout")


def check_endpoint(meter: Meter, endpoint: str) -> None:
    """Raises 403 where the key's scope has it not."""
    if not meter.key.rules.permits(endpoint):
        raise ApiError(403, f"This API key is not for {endpoint}", code="endpoint_not_allowed")


def may_use(meter: Meter | None, serving: Serving) -> bool:
    """Whether the key is for that release, by any of its names."""
    models = () if meter is None else meter.key.rules.models
    return not models or any(name == serving.release.base or serving.release.is_named(name) for name in models)


def check_model(meter: Meter, serving: Serving) -> None:
    """Raises 403 where the key is for other models."""
    if not may_use(meter, serving):
        raise ApiError(403, "This API key is not for that model", param="model", code="model_not_allowed")
