"""Whether the process lives, and whether a request sent now would be answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treadle.serve.entry import try_to_catch_up
from treadle.serve.incoming import Incoming

if TYPE_CHECKING:
    from treadle.serve.gateway import Gateway


async def live(incoming: Incoming) -> None:
    """200 while the process lives."""
    await incoming.reply({"status": "ok"})


async def ready(incoming: Incoming) -> None:
    """200 while requests are answered, 503 otherwise. Of several models one that answers is enough: whoever leads
    requests here would else take them from all for the one that does not, which is ``partial``."""
    gateway = incoming.gateway
    try_to_catch_up(gateway)
    if gateway.ready():
        await incoming.reply({"status": "ok" if all(each.ready() for each in gateway.models) else "partial"})
        return
    await incoming.reply({"status": _why_not(gateway)}, status=503)


def _why_not(gateway: Gateway) -> str:
    if gateway.draining:
        return "draining"
    if all(each.table.champion is None for each in gateway.models):
        return "no_model"
    return "record_unavailable" if any(each.unrecorded for each in gateway.models) else "engine_unavailable"
