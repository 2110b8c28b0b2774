"""Whether the process lives, and whether a request sent now would be answered."""

from __future__ import annotations

from treadle.serve.incoming import Incoming


async def live(incoming: Incoming) -> None:
    """200 while the process lives."""
    await incoming.reply({"status": "ok"})


async def ready(incoming: Incoming) -> None:
    """200 while requests are answered, 503 otherwise."""
    gateway = incoming.gateway
    state = "ok"
    if not gateway.ready():
        nobody = gateway.table.champion is None
        state = "draining" if gateway.draining else "no_model" if nobody else "engine_unavailable"
    await incoming.reply({"status": state}, status=200 if state == "ok" else 503)
