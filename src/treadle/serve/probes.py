"""Whether the process lives, and whether a request sent now would be answered."""

from __future__ import annotations

from treadle.serve.incoming import Incoming


async def live(incoming: Incoming) -> None:
    """200 while the process lives."""
    await incoming.reply({"status": "ok"})


async def ready(incoming: Incoming) -> None:
    """200 while requests are answered, 503 otherwise. Of several models one that answers is enough: whoever leads
    requests here would else take them from all for the one that does not, which is ``partial``."""
    gateway = incoming.gateway
    if gateway.ready():
        await incoming.reply({"status": "ok" if all(each.ready() for each in gateway.models) else "partial"})
        return
    nobody = all(each.table.champion is None for each in gateway.models)
    state = "draining" if gateway.draining else "no_model" if nobody else "engine_unavailable"
    await incoming.reply({"status": state}, status=503)
