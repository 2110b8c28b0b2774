"""What answers a request: the release it got, and another one where that cannot, while nothing was sent.

Both leave their row: the release that failed, with its error, and the one that answered, which says what it answers
instead of. Whoever asked for one release by name gets that one or an error.
"""

from __future__ import annotations

from treadle.serve.copying import Answer, offer
from treadle.serve.entry import Entry
from treadle.serve.errors import ApiError
from treadle.serve.incoming import Incoming
from treadle.serve.table import Chosen


async def answered(incoming: Incoming, model: str | None, user: str | None, answer: Answer) -> None:
    """Answer by what the request gets, or else by the fallback; then a copy may go to the shadow. Raises as ``answer``
    does."""
    chosen = incoming.chosen = incoming.choose(model, user)
    try:
        await answer(incoming, chosen)
    except ApiError as error:
        other = incoming.other(error)
        if other is None:
            raise
        incoming.gateway.metrics.fallbacks.labels(chosen.serving.release.name, other.release.name).inc()
        incoming.instead_of = incoming.interaction
        chosen = incoming.chosen = Chosen(other, None)
        await answer(incoming, chosen)
    incoming.answered_by = chosen.serving
    offer(incoming, chosen.serving, answer)


def became(incoming: Incoming, entry: Entry) -> None:
    """The request is this interaction now."""
    entry.instead_of, entry.copy_of = incoming.instead_of, incoming.copy_of
    incoming.interaction, incoming.stored = entry.id, entry.store
