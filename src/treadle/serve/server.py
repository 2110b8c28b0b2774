"""Starting and ending the server: the port first, a drain before the end, a server for a test.

The order matters. The socket is bound before a model is loaded, so that a taken port costs no minute of loading; new
requests are answered with 503 while it drains, so that a client learns at once that it must go elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from treadle.core import memory
from treadle.core.errors import UserError
from treadle.serve.app import create_app
from treadle.serve.gateway import API_KEY_VARIABLE, Gateway

OpenGateway = Callable[[], Awaitable[Gateway]]
Beside = Callable[[Gateway, str], AbstractAsyncContextManager[None]]
DRAIN_SECONDS = 30.0
_BACKLOG = 2048
_KEEP_ALIVE = 75  # seconds; longer than clients keep idle connections, so that the client is the one to close
logger = logging.getLogger("treadle.serve")


def bind(host: str, port: int, *, keyed: bool = False) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises ``UserError`` when port or host cannot be had, and for a host
    that others can reach, unless ``keyed`` or TREADLE_API_KEY says that they need a key. ``keyed`` is also for where
    something in front asks who calls.

    It listens at once: two sockets that are only bound could both have the port, and the second server would learn it
    after it had loaded its model. Early clients wait in the queue.
    """
    if not is_loopback(host) and not keyed and not os.environ.get(API_KEY_VARIABLE):
        raise UserError(
            f"host {host}: reachable from other machines, and there is no API key; make one with treadle keys create,"
            f" set {API_KEY_VARIABLE}, or serve on 127.0.0.1"
            " (--no-key is for where a platform in front asks who calls)"
        )
    if not 0 <= port <= 65535:
        raise UserError(f"port {port}: expected a number from 0 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise UserError(
            f"host {host!r}: {error.strerror or error}; expected a name or address of this machine"
        ) from None
    # Named as TCP, without which asyncio leaves Nagle's algorithm on: 40 ms for each answer of two writes.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise UserError(_why_not(host, port, error)) from None
    return sock


def is_loopback(host: str) -> bool:
    """True when nobody outside this machine can reach that address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_of(sock: socket.socket) -> str:
    """``http://HOST:PORT`` of a bound socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    open_gateway: OpenGateway,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_ready: Callable[[str], None] | None = None,
    drain_seconds: float = DRAIN_SECONDS,
    beside: Beside | None = None,
    mounts: Mapping[str, ASGIApp] | None = None,
    keyed: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then let requests in flight finish for ``drain_seconds``; a second SIGINT ends it.

    ``open_gateway`` is called in the server's event loop once the port is ours, ``on_ready`` with the URL when requests
    are answered. ``beside`` is entered before that and left when the last request has ended; `Follower.following` is
    one. ``mounts`` as in `create_app`, ``keyed`` as in `bind`. All engines are closed at the end. Raises what `bind`,
    ``open_gateway`` and ``beside`` raise.
    """
    sock = bind(host, port, keyed=keyed)
    plan = _Plan(open_gateway, sock, on_ready or _nobody, drain_seconds, beside, mounts or {})
    with contextlib.closing(sock), asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(plan, _Stop()))


@contextlib.contextmanager
def serving(
    open_gateway: OpenGateway,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    drain_seconds: float = DRAIN_SECONDS,
    beside: Beside | None = None,
    mounts: Mapping[str, ASGIApp] | None = None,
) -> Iterator[str]:
    """A server in a thread for as long as the ``with`` lasts; gives its URL. Raises as `run` does."""
    sock = bind(host, port)
    ready = threading.Event()
    failed: list[BaseException] = []
    stop = _Stop()
    plan = _Plan(open_gateway, sock, lambda _: ready.set(), drain_seconds, beside, mounts or {})

    def work() -> None:
        try:
            with contextlib.closing(sock), asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(_serve(plan, stop))
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    url = url_of(sock)
    thread = threading.Thread(target=work, name="treadle-serve", daemon=True)
    thread.start()
    try:
        ready.wait()
        if not failed:
            yield url
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


@dataclass(frozen=True)
class _Plan:
    """What `run` was asked for."""

    open_gateway: OpenGateway
    sock: socket.socket
    on_ready: Callable[[str], None]
    drain: float
    beside: Beside | None
    mounts: Mapping[str, ASGIApp]


class _Stop:
    """The wish to end, said from a signal handler or another thread."""

    def __init__(self) -> None:
        self.said = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()

    def bind(self) -> None:
        """Called in the loop that will wait."""
        self._loop = asyncio.get_running_loop()
        if self.said:
            self._event.set()

    def set(self) -> None:
        """Say it; also from a signal handler or another thread."""
        self.said += 1
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing left to stop
                self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        """Until it was said."""
        await self._event.wait()


async def _serve(plan: _Plan, stop: _Stop) -> None:
    stop.bind()
    with _signals(stop):
        gateway = await _unless(stop, asyncio.ensure_future(plan.open_gateway()))
        if gateway is None:
            return
        try:
            await gateway.keyring.start()
            memory.give_back()  # a tokenizer is opened by way of as much again
            with _settled():
                await _answer(gateway, plan, stop)
        finally:
            await gateway.close()


@contextlib.contextmanager
def _settled() -> Iterator[None]:
    """What is loaded by now is not looked through for garbage again, during which nobody is answered. A process that
    has seen to that itself is left as it is."""
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def _answer(gateway: Gateway, plan: _Plan, stop: _Stop) -> None:
    server = uvicorn.Server(config(create_app(gateway, plan.mounts), drain_seconds=5))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment] # ours are set already
    url = url_of(plan.sock)
    async with plan.beside(gateway, url) if plan.beside else contextlib.nullcontext():
        task = asyncio.create_task(server.serve(sockets=[plan.sock]))
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        if not task.done():
            plan.on_ready(url)
            asked = asyncio.create_task(stop.wait())
            await asyncio.wait((task, asked), return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            if not await _unless_again(stop, gateway.drain(plan.drain)):
                logger.warning("%d requests did not end in time and were cancelled", gateway.in_flight)
                await gateway.abort()
        server.should_exit = True
        await task


async def _unless(stop: _Stop, opening: asyncio.Future[Gateway]) -> Gateway | None:
    """The gateway, or None when the wish to end came first."""
    asked = asyncio.create_task(stop.wait())
    either: set[asyncio.Future[Any]] = {opening, asked}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if opening.done():
        return opening.result()
    opening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await opening
    return None


async def _unless_again(stop: _Stop, draining: Coroutine[Any, Any, bool]) -> bool:
    """What draining says; False as soon as somebody asks a second time."""
    task = asyncio.create_task(draining)
    while not task.done() and stop.said < 2:
        await asyncio.wait({task}, timeout=0.05)
    if not task.done():
        task.cancel()
        return False
    return task.result()


@contextlib.contextmanager
def _signals(stop: _Stop) -> Iterator[None]:
    """SIGTERM and SIGINT say stop; in a thread other than the main one signals cannot be had."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def config(app: Any, *, drain_seconds: int) -> uvicorn.Config:
    """How every server here is run, ``drain_seconds`` being what connections get once it is to end."""
    http: Any = "h11"  # it has limits of its own
    with contextlib.suppress(ImportError):
        from treadle.serve.connection import bounded

        http = bounded()
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=drain_seconds,
    )


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is installed; asyncio's own otherwise."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; stop what listens there, or choose another with --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} on {host} is not allowed to this user; choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host {host} is not an address of this machine; use 127.0.0.1 or 0.0.0.0"
    return f"cannot listen on {host}:{port}: {error.strerror}; choose another with --host or --port"


def _nobody(_url: str) -> None:
    """Nobody asked to be told."""
