"""``/v1/feedback``: what a client says of an interaction, joined to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from treadle.core.errors import TreadleError
from treadle.record.feedback import UNSEEN, Feedback, Kind, can_be_seen, new_feedback_id
from treadle.record.interaction import Interaction, is_interaction_id
from treadle.serve.entry import logger
from treadle.serve.errors import SERVER, ApiError, invalid
from treadle.serve.gateway import Gateway
from treadle.serve.generate import decode
from treadle.serve.incoming import Incoming
from treadle.serve.meter import Meter
from treadle.serve.requests import FeedbackRequest
from treadle.serve.served_model import ServedModel

_T = TypeVar("_T")
_UNREAD = 5.0  # seconds
_decoder = msgspec.json.Decoder(FeedbackRequest)


async def feedback(incoming: Incoming) -> None:
    """Answer ``POST /v1/feedback``: 201 when it is new, 200 when the same was said before, 404 for no interaction.

    429 when one sender says too much.
    """
    body: FeedbackRequest = decode(_decoder, await incoming.body())
    gateway = incoming.gateway
    kind, value = _said(body)
    gateway.admit_feedback(_keyed(gateway.first, body), incoming.key)
    model, found = await _looked_up(gateway, body.interaction, incoming.meter)
    _check(body, found)
    async with model.feedback_lock:  # so that of two that say the same at once, the second finds the first
        user = _keyed(model, body)
        row = _row(gateway, model, body, found, kind, value, user)
        # Only against the last word of the same kind: up, down, up again is a change of mind, not a repetition.
        before = await _found(model.recorder.feedback_on, found.id)
        same = [each for each in before if each.kind == kind and each.user == user][-1:]
        repeated = bool(same) and same[0].says_the_same(row)
        if repeated:
            row = same[0]
        else:
            _record(gateway, model, row)
    answer = {"id": row.id, "object": "feedback", "interaction": row.interaction, "kind": row.kind, "time": row.time}
    await incoming.reply(answer, status=200 if repeated else 201)


def _keyed(model: ServedModel, body: FeedbackRequest) -> str | None:
    return model.recorder.keyed(body.user) if body.user else None


async def _looked_up(gateway: Gateway, interaction: str, meter: Meter | None) -> tuple[ServedModel, Interaction]:
    """The interaction, and the model whose record has it. Raises 404, also for one of a model that the key is not for
    or that nobody is answered by; 503 where that may be one that cannot be read, which is not tried again for a while:
    others must not wait for it."""
    unread: ApiError | None = None
    for model in gateway.models if is_interaction_id(interaction) else ():
        if model.withheld:
            continue
        if len(gateway.models) > 1 and time.monotonic() < model.unread_until:
            unread = _unavailable("read")
            continue
        try:
            found = await _found(model.recorder.find_interaction, interaction)
        except ApiError as error:
            unread, model.unread_until = error, time.monotonic() + _UNREAD
            continue
        if found is not None and (len(gateway.models) == 1 or _is_for(meter, model, found)):
            return model, found
    raise unread or ApiError(
        404, "interaction: no such interaction; send the id of an answer", param="interaction", code="not_found"
    )


def _is_for(meter: Meter | None, model: ServedModel, found: Interaction) -> bool:
    names = () if meter is None else meter.key.rules.models
    return not names or any(name.partition("@")[0] == model.name or name == found.release for name in names)


async def _found(find: Callable[[str], _T], interaction: str) -> _T:
    """Raises 503 when the record cannot be read, for its database is away."""
    try:
        return await asyncio.to_thread(find, interaction)
    except (TreadleError, OSError) as error:
        logger.error("the record cannot be read: %s", type(error).__name__)
        raise _unavailable("read") from error


def _unavailable(done: str) -> ApiError:
    return ApiError(503, f"The record cannot be {done}", type=SERVER, code="record_unavailable", retry_after=2)


def _row(
    gateway: Gateway,
    model: ServedModel,
    body: FeedbackRequest,
    found: Interaction,
    kind: Kind,
    value: float | None,
    user: str | None,
) -> Feedback:
    clean = gateway.redact if model.recording.mode == "redacted" else _unchanged
    return Feedback(
        id=new_feedback_id(),
        interaction=found.id,
        time=datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z",
        kind=kind,
        value=value,
        correction=None if body.correction is None else clean(body.correction),
        comment=None if body.comment is None else clean(body.comment),
        user=user,
    )


def _record(gateway: Gateway, model: ServedModel, row: Feedback) -> None:
    """Raises 503 when the record cannot take it."""
    try:
        model.recorder.feedback(row)
    except Exception as error:
        logger.error("feedback on %s could not be recorded: %s", row.interaction, type(error).__name__)
        raise _unavailable("written") from error
    gateway.metrics.feedback.labels(row.kind).inc()


def _said(body: FeedbackRequest) -> tuple[Kind, float | None]:
    said: list[tuple[Kind, float | None]] = []
    if body.thumbs is not None:
        said.append(("thumbs", 1.0 if body.thumbs == "up" else 0.0))
    if body.score is not None:
        said.append(("score", float(body.score)))
    if body.correction is not None:
        said.append(("correction", None))
    if body.preference is not None:
        said.append(("preference", float(body.preference)))
    if len(said) != 1:
        raise invalid(None, f"Expected one of thumbs, score, correction, preference; got {len(said)} of them")
    if body.correction is not None and not can_be_seen(body.correction):
        raise invalid("correction", f"correction: {UNSEEN}; say what the answer should have been")
    return said[0]


def _check(body: FeedbackRequest, found: Interaction) -> None:
    if found.messages is None and (body.correction is not None or body.comment is not None):
        param = "correction" if body.correction is not None else "comment"
        said = f"{param}: no text is kept of this interaction, nor of what is said of it; send thumbs or a score"
        raise invalid(param, said, code="not_stored")
    if body.preference is not None and body.preference > len(found.alternatives):
        choices = len(found.alternatives) + 1
        raise invalid("preference", f"preference: the answer had {choices} choices, counted from 0")


def _unchanged(text: str) -> str:
    return text
