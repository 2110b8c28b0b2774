"""What answers a request: the release it got, and another one where that cannot, while nothing was sent.

Both leave their row: the release that failed, with its error, and the one that answered, which says what it answers
instead of. Whoever asked for one release by name gets that one or an error.
"""

from __future__ import annotations

from treadle.serve.copying import Answer, offer
from treadle.serve.entry import Entry
from treadle.serve.errors import FAILED_OVER, ApiError
from treadle.serve.incoming import Incoming, may_use
from treadle.serve.release import Serving
from treadle.serve.table import Chosen


async def answered(incoming: Incoming, model: str | None, user: str | None, answer: Answer) -> None:
    """Answer by what the request gets, or else by the fallback; then a copy may go to the shadow. Raises as ``answer``
    does."""
    chosen = incoming.choose(model, user)
    try:
        await answer(incoming, chosen)
    except ApiError as error:
        other = _other(incoming, chosen, error)
        if other is None:
            raise
        incoming.gateway.metrics.fallbacks.labels(chosen.serving.release.name, other.release.name).inc()
        incoming.instead_of = incoming.interaction
        chosen = Chosen(other, None)
        await answer(incoming, chosen)
    incoming.answered_by = chosen.serving
    offer(incoming, chosen.serving, answer)


def became(incoming: Incoming, entry: Entry) -> None:
    """The request is this interaction now."""
    entry.instead_of, entry.copy_of = incoming.instead_of, incoming.copy_of
    incoming.interaction, incoming.stored = entry.id, entry.store


def _other(incoming: Incoming, chosen: Chosen, error: ApiError) -> Serving | None:
    """The release to be asked instead; None where there is none, or it is not for this."""
    other = incoming.gateway.table.fallback
    if other is None or other.engine is chosen.serving.engine or error.code not in FAILED_OVER:
        return None
    if incoming.status or chosen.share is None or other.release.asking != chosen.serving.release.asking:
        return None
    return other if may_use(incoming.meter, other) else None
