"""What a request says, looked at by the release's guardrails before anything else is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.serve.aside import aside
from treadle.serve.entry import Entry, Outcome, catch_up, clean_long_texts, record
from treadle.serve.errors import ApiError
from treadle.serve.guardrail import Stopped, screened
from treadle.serve.incoming import Incoming
from treadle.serve.release import Serving

FILTERED = "content_filter"


async def screen(
    incoming: Incoming, serving: Serving, entry: Entry, values: Sequence[Any], param: str | Sequence[str]
) -> list[Any]:
    """The values as the guardrails leave them, JSON-like as they came. What was done stands in the entry. ``param``:
    what they came as, or each of their texts.

    Raises 400 where one refuses them, which is recorded, and 503 while the record cannot be written; before that 403
    where the key is not for it.
    """
    incoming.check(serving, entry.endpoint)
    guards = serving.guardrails.inward
    if not guards:
        return list(values)
    catch_up(incoming.gateway, incoming.model)  # a refusal is recorded too
    try:
        with incoming.gateway.keeping(serving):
            shown, done = await aside(len(str(values)), lambda: screened(guards, values))
    except Stopped as stopped:
        entry.guardrails.append(stopped.done)
        await clean_long_texts(incoming.gateway, entry)
        record(incoming.gateway, serving, entry, Outcome("cancelled", finish_reason=FILTERED, error=FILTERED))
        said = f"The request was refused by the guardrail {stopped.done['guardrail']}"
        named = param if isinstance(param, str) else param[stopped.place]
        raise ApiError(400, said, param=named, code=FILTERED) from None
    entry.guardrails += done
    return shown
