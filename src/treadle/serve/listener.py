"""A server for another tool's protocol, which comes by name: who is let in, a steady tick, and an end without loss.

A protocol is ``class(record, *, silence)`` with what `Spoken` says, in the group ``treadle.protocols``. One server of a
protocol at a time answers for a project, so it may keep in memory what it wrote.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol
from urllib.parse import urlsplit

import uvicorn
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from treadle.core.errors import TreadleError, UserError
from treadle.core.state import State
from treadle.record.record import Record
from treadle.serve.gateway import API_KEY_VARIABLE
from treadle.serve.server import bind, config, is_loopback, loop_factory, url_of

GROUP = "treadle.protocols"
SILENCE = 6 * 3600.0  # seconds without a word after which a run counts as crashed; a later word makes it go on
_TICK, _BEAT, _SWEEP = 1.0, 15.0, 60.0  # seconds
_DRAIN = 30
_QUERY_BYTES = 64 << 10
logger = logging.getLogger("treadle.listen")


class Spoken(Protocol):
    """What speaks a protocol: an ASGI application and a little more."""

    open_paths: tuple[str, ...]  # answered without a key: probes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        ...

    def refuse(self, status: int, message: str) -> ASGIApp:
        """The answer to somebody who is not let in."""
        ...

    def tick(self) -> None:
        """Called every second, in a thread."""
        ...

    def close(self) -> None:
        """The last request has been answered."""
        ...


class Guard:
    """Lets in who has the key, where there is one; on loopback, only under names of this machine and from no page
    elsewhere, for a browser sends what any page asks it to."""

    def __init__(self, app: Spoken, *, key: str | None, loopback: bool) -> None:
        self._app = app
        self._key = key
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return
        refused = self._refused(scope)
        await (self._app if refused is None else self._app.refuse(*refused))(scope, receive, send)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if self._loopback and not _own(f"//{headers.get('host', '')}"):
            return 403, "This server answers at 127.0.0.1 and localhost only"
        origin = headers.get("origin")
        if origin is not None and not _own(origin):
            return 403, "Web pages may not call this server"
        if len(scope.get("query_string", b"")) > _QUERY_BYTES:
            return 400, f"The address is longer than {_QUERY_BYTES:,} bytes"
        if self._key is None or scope["path"] in self._app.open_paths:
            return None
        if not hmac.compare_digest(_given(headers.get("authorization", "")).encode(), self._key.encode()):
            return 401, f"Send the key of this server: Authorization: Bearer KEY, as in its {API_KEY_VARIABLE}"
        return None


def _own(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _given(authorization: str) -> str:
    """The key in a header: a bearer token, or the password of anybody."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "basic":
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    return value.strip() if scheme.lower() == "bearer" else ""


def run(record: Record, name: str, app: Spoken, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then answer what is in flight, for at most half a minute.

    ``on_ready`` is called with the URL when requests are answered. Raises ``UserError`` where the address cannot be
    had, or another server of this protocol answers for this project.
    """
    with contextlib.closing(bind(host, port)) as sock:
        url = url_of(sock)
        with _alone(record.workspace.state, name, url) as lease:
            try:
                key = os.environ.get(API_KEY_VARIABLE)
                guard = Guard(app, key=key, loopback=is_loopback(host))
                ticks = _Ticks(record, app, lease)
                server = uvicorn.Server(config(guard, drain_seconds=_DRAIN))
                with asyncio.Runner(loop_factory=loop_factory()) as runner:
                    runner.run(_serve(server, sock, ticks, lambda: on_ready(url)))
            finally:
                app.close()


@contextlib.contextmanager
def _alone(state: State, name: str, url: str) -> Iterator[str]:
    lease, place = f"listen:{name}", f"listen.{name}.url"
    if lease in state.live_leases(lease):
        raise UserError(f"{state.get(place)} listens to {name} for this project already; stop it first")
    state.take_lease(lease)
    state.set(place, url)
    try:
        yield lease
    finally:
        state.swap(place, None)
        state.drop_lease(lease)


class _Ticks:
    """What is done every now and then beside the requests. What fails is tried again."""

    def __init__(self, record: Record, app: Spoken, lease: str) -> None:
        self._record, self._app, self._lease = record, app, lease
        self._next = dict.fromkeys(("beat", "sweep"), 0.0)

    def __call__(self) -> None:
        """Once; in a thread."""
        for what, seconds, call in (
            ("tick", 0.0, self._app.tick),
            ("beat", _BEAT, lambda: self._record.workspace.state.beat(self._lease)),
            ("sweep", _SWEEP, self._record.runs.sweep),
        ):
            if time.monotonic() >= self._next.get(what, 0.0):
                self._next[what] = time.monotonic() + seconds
                try:
                    call()
                except (OSError, TreadleError) as error:
                    logger.warning("%s failed, and is tried again: %s", what, error)
                except Exception:  # whoever sends something now must not lose it to a mistake of ours
                    logger.exception("%s failed, and is tried again", what)


async def _serve(server: uvicorn.Server, sock: Any, ticks: _Ticks, ready: Callable[[], None]) -> None:
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment] # ours are set below
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    while not server.started and not task.done():
        await asyncio.sleep(0.005)
    if not task.done():
        ready()
    while not task.done():
        await asyncio.to_thread(ticks)
        await asyncio.wait({task}, timeout=_TICK)
    await task
