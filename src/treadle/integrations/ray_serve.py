"""A release as an application of Ray Serve: what `serve deploy` starts on each replica.

A replica opens the release's folder, checks that it is the digest that was rendered, and answers as `treadle serve`
does, through Ray's proxy: every path, key and contract, with interactions in a journal folder. Not covered: the limits
on slow and hostile connections are the proxy's own here.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.core.errors import MissingExtra, TreadleError, UserError
from treadle.core.settings import bind

if TYPE_CHECKING:
    from treadle.serve.gateway import Gateway

DEPLOYMENT = "Release"
DRAIN_SECONDS = 30.0
logger = logging.getLogger("treadle.serve")
Told = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the file says to an application. ``host`` is where Ray's proxy listens: beyond this machine clients need a
    key, TREADLE_API_KEY where Ray was started, or one of the project whose database TREADLE_KEYS_DATABASE names
    there."""

    release_folder: str
    journal: str
    digest: str
    name: str
    host: str


def application(args: dict[str, Any]) -> Any:
    """The application of Ray Serve that answers with one release; named by ``import_path`` in its file.

    ``UserError`` for arguments that it does not know, ``MissingExtra`` without Ray.
    """
    try:
        from ray import serve
    except ImportError:
        raise MissingExtra("ray", extra="rayserve") from None
    arguments: Arguments = bind(Arguments, args, where="args of the application", provided={})

    def build() -> Any:
        return Replica(arguments)

    return serve.deployment(serve.ingress(build)(), name=DEPLOYMENT).bind()


class Replica:
    """The web application of one replica: opened when Ray starts it, drained when Ray ends it."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._app: Any = None
        self._gateway: Gateway | None = None
        self._open = ExitStack()

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Told) -> None:
        """As ASGI has it."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, receive: Callable[[], Awaitable[Any]], send: Told) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._start()
                except TreadleError as error:
                    logger.error("%s", error)  # noqa: TRY400 (one line says it)
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._end()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _start(self) -> None:
        from treadle.serve.app import create_app
        from treadle.serve.gateway import API_KEY_VARIABLE
        from treadle.serve.server import is_loopback
        from treadle.serve.table import Table
        from treadle.stages.deploy.carried import own_record, read_carried
        from treadle.stages.deploy.carried_keys import DEGRADE, VARIABLE, project_keys, read_degrade
        from treadle.stages.deploy.serving import carried_gateway

        given = self._arguments
        folder = Path(given.release_folder)
        carried = await asyncio.to_thread(read_carried, folder, expected=given.digest, name=given.name)
        try:
            record = self._open.enter_context(own_record(Path(given.journal), carried.spec.name))
            keys = await asyncio.to_thread(self._open.enter_context, project_keys(record))
            known = await asyncio.to_thread(keys.all) if keys is not None else []
            keyed = bool(os.environ.get(API_KEY_VARIABLE)) or bool(known)
            if not is_loopback(given.host) and not keyed:
                raise UserError(
                    f"host {given.host}: reachable from other machines; set {API_KEY_VARIABLE} where Ray starts, or"
                    f" {VARIABLE} where the project has a key"
                )
            degraded = read_degrade(os.environ.get(DEGRADE))
            table = Table(await carried.open())
            self._gateway = carried_gateway(
                record, carried.spec, table, hosts=None, degrade_seconds=degraded, keys=keys
            )
            await self._gateway.keyring.start()
        except BaseException:
            self._open.close()
            raise
        self._app = create_app(self._gateway)

    async def _end(self) -> None:
        gateway = self._gateway
        if gateway is None:
            return
        if not await gateway.drain(DRAIN_SECONDS):
            await gateway.abort()
        await gateway.close()
        self._open.close()
