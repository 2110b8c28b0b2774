"""Who sent a request: its whole body, its leaving, and one whole answer to it.

ASGI's messages say all of that, at the price of a task that waits for the leaving and of an answer in two messages. A
server that knows its clients puts itself into the scope, and is asked directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from starlette.types import Receive, Scope, Send

EXTENSION = "treadle.client"
CLOSE = (b"connection", b"close")
Headers = Sequence[tuple[bytes, bytes]]


class ClientLeft(Exception):
    """The client closed the connection before it had its answer."""


class Client(Protocol):
    """One request's."""

    def body(self) -> bytes | None:
        """The body where all of it is here already; to be called once, before anything is received."""
        ...

    def on_leaving(self, call: Callable[[], object]) -> Callable[[], object]:
        """Call that once, in the event loop, when the client leaves; gives what puts an end to that. The body was read.
        Raises ``ClientLeft``."""
        ...

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer and end; ``content-length`` comes by itself, and ``CLOSE`` closes the connection."""
        ...


def client_of(scope: Scope, receive: Receive, send: Send) -> Client:
    """The server's own where it has one, else what ASGI's messages say."""
    known: Any = scope.get("extensions") or {}
    found = known.get(EXTENSION)
    return _AsgiClient(receive, send) if found is None else cast("Client", found)


class _AsgiClient:
    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    def body(self) -> bytes | None:
        return None

    def on_leaving(self, call: Callable[[], object]) -> Callable[[], object]:
        async def watch() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            call()

        return asyncio.create_task(watch()).cancel

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
