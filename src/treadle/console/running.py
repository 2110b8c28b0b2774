"""Running the console by itself: on loopback, until Ctrl-C or SIGTERM; others may ask for more links meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from socket import socket

import uvicorn

from treadle.console.app import Console
from treadle.core.errors import UserError
from treadle.core.state import State
from treadle.serve.server import bind, url_of

HOST = "127.0.0.1"
PORT = 8010  # another one is taken where this is in use, unless it was asked for
_LEASE = "console"
_URL = "console.url"
_KEEP_ALIVE = 75  # seconds


def address(state: State) -> str | None:
    """Where the console of this project answers; None when none runs."""
    url = state.get(_URL)
    return str(url) if url and _LEASE not in state.dead_leases(_LEASE) else None


def listening(port: int | None) -> socket:
    """A socket on loopback. Raises ``UserError`` where the port that was asked for cannot be had."""
    try:
        return bind(HOST, PORT if port is None else port)
    except UserError:
        if port is not None:
            raise
        return bind(HOST, 0)


def run(console: Console, sock: socket, on_ready: Callable[[str], None]) -> None:
    """Serve until a signal says stop; ``on_ready`` is called with the URL when requests are answered."""
    state = console.project.record.workspace.state
    url = url_of(sock)
    with contextlib.closing(sock):
        state.take_lease(_LEASE)
        state.set(_URL, url)
        try:
            asyncio.run(_serve(console, sock, lambda: on_ready(url)))
        finally:
            state.swap(_URL, None)
            state.drop_lease(_LEASE)


async def _serve(console: Console, sock: socket, ready: Callable[[], None]) -> None:
    config = uvicorn.Config(
        console,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
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
    await task
