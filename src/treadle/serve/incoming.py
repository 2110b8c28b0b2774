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
from treadle.serve.errors import SERVER, ApiError
from treadle.serve.gateway import Gateway, current_task
from treadle.serve.release import Serving

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}\Z")
_PASSED_OVER = 64 << 20  # bytes of a body that is too large, before the connection is closed on it


class ClientLeft(Exception):
    """The client closed the connection before it had its answer."""


class Incoming:
    """``request`` is the client's ``x-request-id`` where that is well formed. ``status`` is what was answered,
    ``failed`` the code of what went wrong. ``given``: the body, where it was read already. ``told`` makes of an error
    what its client can read."""

    def __init__(self, gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
        self.arrived = time.perf_counter()
        self.gateway = gateway
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.key: str | None = None
        self.status = 0
        self.failed: str | None = None
        self.given: bytes | None = None
        self.told: Callable[[ApiError], Any] = ApiError.body
        self._receive = receive
        self._send = send
        given = self.headers.get(b"x-request-id", b"")
        self.request = given.decode() if _REQUEST_ID.match(given) else new_id("req")

    def header(self, name: str) -> str | None:
        """A header's value, the last where it came more than once."""
        value = self.headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    async def body(self) -> bytes:
        """The whole body. Raises 413 over the limit, 408 when it does not come in time, ``ClientLeft``."""
        if self.given is not None:
            return self.given
        settings = self.gateway.settings
        limit = settings.max_body_bytes
        deadline = time.perf_counter() + settings.body_seconds
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared[:20]) > limit:
            raise await self._too_large(deadline, more=b"expect" not in self.headers)
        message = await self._next(settings.body_seconds)
        if not message.get("more_body") and len(message["body"]) <= limit:  # nearly always it comes in one piece
            return bytes(message["body"])
        data = bytearray(message["body"])
        while message.get("more_body") and len(data) <= limit:
            message = await self._next(deadline - time.perf_counter())
            data += message["body"]
        if len(data) > limit:
            raise await self._too_large(deadline, more=bool(message.get("more_body")))
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

    @asynccontextmanager
    async def working(self, serving: Serving) -> AsyncIterator[None]:
        """Hold a place with a release and a deadline, and stop when the client leaves.

        Call it when the body was read. Raises 429, 503, 504 and ``ClientLeft``.
        """
        task = current_task()
        left = False

        async def watch() -> None:
            nonlocal left
            while (await self._receive())["type"] != "http.disconnect":
                pass
            left = True
            task.cancel()

        limit = self.gateway.settings.request_seconds
        with self.gateway.place(serving):
            watcher = asyncio.create_task(watch())
            try:
                async with asyncio.timeout(limit):
                    yield
            except TimeoutError:
                message = f"The answer took longer than {limit:g} seconds"
                raise ApiError(504, message, type=SERVER, code="timeout") from None
            except asyncio.CancelledError:
                if not left:
                    raise
                while task.cancelling():
                    task.uncancel()
                raise ClientLeft from None
            finally:
                watcher.cancel()

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the status line and the headers."""
        self.status = status
        headers = [*headers, (b"x-request-id", self.request.encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

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
        known = {"content-type": kind, "content-length": str(len(data)), **(headers or {})}
        await self.start(status, [(name.encode(), value.encode()) for name, value in known.items()])
        await self.write(data, more=False)

    async def refuse(self, error: ApiError) -> None:
        """Send an error and end."""
        await self.reply(self.told(error), status=error.status, headers=error.headers())
