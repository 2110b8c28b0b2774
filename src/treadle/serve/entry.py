"""From a request and what came of it to the one row that it leaves in the journal."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from treadle.record.interaction import (
    SHADOW,
    SMOKE,
    Cost,
    Given,
    Interaction,
    Seconds,
    Status,
    Tokens,
    is_smoke,
    new_interaction_id,
)
from treadle.serve.aside import aside, is_large
from treadle.serve.errors import SERVER, ApiError
from treadle.serve.gateway import Gateway
from treadle.serve.release import Serving
from treadle.serve.served_model import ServedModel

logger = logging.getLogger("treadle.serve")
NO_TOKENS = Tokens()
_UNAVAILABLE = "record_unavailable"


@dataclass(frozen=True, slots=True)
class ContextPiece:
    """Context as the caller sent it; ``document`` is the id the caller gave it."""

    text: str
    title: str | None = None
    document: str | None = None


@dataclass(slots=True)
class Entry:
    """What is known when a request goes to the engine. ``model``: whose record it goes to. ``arrived`` is on
    ``time.perf_counter``'s clock; ``share`` as in `Chosen`."""

    model: ServedModel
    request: str
    endpoint: str
    arrived: float
    messages: Sequence[Mapping[str, Any]]
    share: float | None = None
    context: Sequence[ContextPiece] = ()
    user: str | None = None
    key: str | None = None
    store: bool = True
    stream: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    metadata: dict[str, str] | None = None
    id: str = field(default_factory=new_interaction_id)
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    handed_over: float | None = None
    first: float | None = None
    guardrails: list[dict[str, Any]] = field(default_factory=list)
    cleaned: dict[str, str] = field(default_factory=dict)  # long texts without personal data
    upstream: dict[str, Any] | None = None
    instead_of: str | None = None
    copy_of: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended. ``answers`` are whole or, when cancelled or failed, what there was until then."""

    status: Status
    answers: Sequence[str] = ()
    finish_reason: str | None = None
    error: str | None = None
    confidence: tuple[float, ...] = ()
    tokens: Tokens = NO_TOKENS


async def clean_long_texts(gateway: Gateway, entry: Entry) -> None:
    """Take personal data out of what came, as the row will have it: to be called before the row is due, which is
    written without waiting for anything."""
    texts = [*(message["content"] for message in entry.messages), *(piece.text for piece in entry.context)]
    size = sum(map(len, texts))
    if is_large(size) and entry.store and entry.model.recording.mode == "redacted":
        entry.cleaned = await aside(size, lambda: {text: gateway.redact(text) for text in texts})


def record(gateway: Gateway, serving: Serving, entry: Entry, outcome: Outcome) -> Interaction:
    """Write the row and count it. Raises 503 when the record cannot take it: nothing goes out unrecorded.

    Of a stream some has gone out by then, so the row is kept, and written before anything else is answered.
    """
    ended = time.perf_counter()
    row = _row(gateway, serving, entry, outcome, ended)
    try:
        entry.model.recorder.interaction(row)
    except Exception as error:
        logger.error("interaction %s could not be recorded: %s", row.id, type(error).__name__)  # noqa: TRY400
        entry.model.unrecorded.append(replace(row, status="failed", error=_UNAVAILABLE, finish_reason="error"))
        raise _unavailable() from error
    _count(gateway, row)
    if outcome.status == "ok" and entry.copy_of is None:
        tokens = outcome.tokens.completion
        gateway.admission.answered(entry.arrived, ended, entry.first, tokens, gateway.in_flight)
    return row


def catch_up(gateway: Gateway, model: ServedModel) -> None:
    """Write what the model's record could not take. Raises 503 as long as it cannot."""
    while model.unrecorded:
        try:
            model.recorder.interaction(model.unrecorded[0])
        except Exception as error:
            raise _unavailable() from error
        _count(gateway, model.unrecorded.popleft())


def try_to_catch_up(gateway: Gateway) -> None:
    """The same for all models, without a word: whether they are ready is asked, and who is not is sent no request that
    would try it."""
    for model in gateway.models:
        with suppress(ApiError):
            catch_up(gateway, model)


def _unavailable() -> ApiError:
    return ApiError(
        503, "The record cannot be written, so nothing is answered", type=SERVER, code=_UNAVAILABLE, retry_after=5
    )


def _row(gateway: Gateway, serving: Serving, entry: Entry, outcome: Outcome, ended: float) -> Interaction:
    rules, release, recorder = entry.model.recording, serving.release, entry.model.recorder
    kept = entry.store and rules.mode != "none"

    def redacted(text: str) -> str:
        found = entry.cleaned.get(text)
        return gateway.redact(text) if found is None else found

    clean = redacted if rules.mode == "redacted" else _unchanged
    tokens = outcome.tokens
    parameters = dict(entry.parameters)
    if kept and entry.stop:
        parameters["stop"] = [clean(text) for text in entry.stop]
    given = tuple(
        Given(
            document=piece.document,
            digest=recorder.keyed_text(piece.text),
            title=clean(piece.title) if kept and piece.title else None,
            text=clean(piece.text) if kept else None,
        )
        for piece in entry.context
    )
    answers = [clean(text) for text in outcome.answers] if kept else []
    queue = (entry.handed_over or ended) - entry.arrived
    rate = None
    if entry.first is not None and tokens.completion > 1 and ended > entry.first:
        rate = (tokens.completion - 1) / (ended - entry.first)
    return Interaction(
        id=entry.id,
        request=entry.request,
        time=_iso(entry.time),
        release=release.digest,
        model=release.name,
        endpoint=entry.endpoint,
        status=outcome.status,
        store=entry.store,
        finish_reason=outcome.finish_reason,
        error=outcome.error,
        user=recorder.keyed(entry.user) if entry.user else None,
        key=entry.key,
        messages=tuple({**m, "content": clean(m["content"])} for m in entry.messages) if kept else None,
        answer=answers[0] if answers else None,
        alternatives=tuple(answers[1:]),
        confidence=outcome.confidence,
        given=given,
        tokens=tokens,
        seconds=Seconds(
            queue=round(queue, 6),
            ttft=None if entry.first is None else round(entry.first - entry.arrived, 6),
            total=round(ended - entry.arrived, 6),
        ),
        tokens_per_second=None if rate is None else round(rate, 3),
        cost=_cost(serving, tokens),
        stream=entry.stream,
        parameters=parameters,
        metadata=_metadata(entry, clean if kept else None),
        purpose=rules.purpose,
        retain_until=_retain_until(entry.time, rules.retention),
        share=entry.share,
        guardrails=tuple(entry.guardrails),
        upstream=entry.upstream,
        origin="traffic" if entry.copy_of is None else SHADOW,
        instead_of=entry.instead_of,
        copy_of=entry.copy_of,
        uncounted=entry.key is not None and gateway.keyring.outage.lending,
    )


def _metadata(entry: Entry, clean: Callable[[str], str] | None) -> dict[str, str] | None:
    """As text is kept. That a request is Treadle's own is known whatever is kept, or it would count as a user's."""
    if clean is not None and entry.metadata:
        return {key: clean(value) for key, value in entry.metadata.items()}
    return SMOKE if is_smoke(entry.metadata) else None


def _count(gateway: Gateway, row: Interaction) -> None:
    metrics = gateway.metrics
    if row.copy_of is not None:
        metrics.shadow_requests.labels(row.model, row.status).inc()
        return
    metrics.answers.labels(row.model, row.status).inc()
    metrics.tokens.labels("prompt").inc(row.tokens.prompt)
    metrics.tokens.labels("completion").inc(row.tokens.completion)
    for done in row.guardrails:
        labels = (done["guardrail"], done["side"], done["action"])
        metrics.guardrails.labels(*labels).inc(sum(done["found"].values()))
    if row.key is not None:
        metrics.key_requests.labels(row.key, row.status).inc()
        if row.uncounted:
            metrics.key_uncounted.labels(row.key).inc()
        metrics.key_tokens.labels(row.key, "prompt").inc(row.tokens.prompt)
        metrics.key_tokens.labels(row.key, "completion").inc(row.tokens.completion)
        if row.cost is not None:
            metrics.key_cost.labels(row.key, row.cost.currency).inc(row.cost.amount)
    if row.tokens.cached:
        metrics.tokens.labels("cached").inc(row.tokens.cached)
    if row.seconds.ttft is not None:
        metrics.ttft.labels(row.endpoint).observe(row.seconds.ttft)
    if row.tokens_per_second is not None:
        metrics.tokens_per_second.observe(row.tokens_per_second)


def _cost(serving: Serving, tokens: Tokens) -> Cost | None:
    price = serving.release.price
    if price is None:
        return None
    amount = (tokens.prompt * price.prompt + tokens.completion * price.completion) / 1e6
    return Cost(price.currency, round(amount, 9))


def _retain_until(start: datetime, seconds: float | None) -> str | None:
    if seconds is None:
        return None
    try:
        return _iso(start + timedelta(seconds=seconds))
    except OverflowError:
        return None


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _unchanged(text: str) -> str:
    return text
