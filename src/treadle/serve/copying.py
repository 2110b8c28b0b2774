"""Copies of requests for the shadow: answered in the background, recorded, and shown to nobody.

A copy is made when its request was answered, so that it takes nothing from it. It counts to no key, no limit, and no
figure of the traffic.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from treadle.serve.client import Headers
from treadle.serve.errors import SERVER, ApiError
from treadle.serve.incoming import Incoming
from treadle.serve.release import Serving
from treadle.serve.table import Chosen

Answer = Callable[[Incoming, Chosen], Awaitable[None]]
_STEPS = 1 << 53


class Copy(Incoming):
    """A request without a client: it has no key and no place, and what answers it is kept by the record alone."""

    def __init__(self, outer: Incoming) -> None:
        vars(self).update(vars(outer))
        self.copy_of = outer.interaction
        self.meter, self.interaction, self.instead_of = None, None, None
        self.status, self.failed, self.given, self.chosen = 0, None, None, None

    @asynccontextmanager
    async def working(self, serving: Serving, endpoint: str) -> AsyncIterator[None]:
        """For as long as a request may take."""
        try:
            async with asyncio.timeout(self.gateway.settings.request_seconds):
                yield
        except TimeoutError:
            raise ApiError(504, "The copy took too long", type=SERVER, code="timeout") from None

    async def start(self, status: int, headers: Headers) -> None:
        """Nobody is told."""

    async def write(self, data: bytes, *, more: bool) -> None:
        """Nobody is told."""

    async def reply(self, content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Nobody is told."""


def offer(incoming: Incoming, answered_by: Serving, answer: Answer) -> None:
    """A request was answered by that: perhaps a copy of it goes to the shadow. One whose text may not be kept does
    not."""
    model = incoming.model
    shadow = model.table.shadow
    if shadow is None or incoming.gateway.draining or incoming.status != 200 or incoming.failed is not None:
        return
    serving = shadow.serving
    if serving.engine is answered_by.engine or serving.release.asking != answered_by.release.asking:
        return
    if not incoming.stored or secrets.randbelow(_STEPS) >= shadow.share * _STEPS:
        return
    work = partial(_answered, Copy(incoming), Chosen(serving, None), answer)
    model.shadows.add(work, serving, size=incoming.size, most=shadow.waiting, at_once=shadow.at_once)


async def _answered(copy: Copy, chosen: Chosen, answer: Answer) -> None:
    copy.arrived = time.perf_counter()  # it is not slow for having waited in the background
    await answer(copy, chosen)
