"""``/v1/classify``, ``/v1/tag`` and ``/v1/embeddings``: several texts in, one result for each."""

from __future__ import annotations

import asyncio
import base64
import math
import sys
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from treadle.core.errors import UserError
from treadle.lm.engine import ClassScores, ReportedVectors, Score, TaggedSpan
from treadle.lm.upstream_address import TooLongError
from treadle.lm.vector_sizes import VectorSizes, cut_vector
from treadle.record.interaction import Status, Tokens
from treadle.serve.aside import aside
from treadle.serve.client import ClientLeft
from treadle.serve.entry import Entry, Outcome, clean_long_texts, record
from treadle.serve.errors import FAILED_OVER, SERVER, ApiError, invalid, too_long
from treadle.serve.exchange import translated
from treadle.serve.fallback import answered, became
from treadle.serve.generate import ENDED_BY_US, decode, refuse_in_vain
from treadle.serve.incoming import Incoming
from treadle.serve.release import Serving
from treadle.serve.replies import traced, usage
from treadle.serve.requests import Body, ClassifyRequest, EmbeddingsRequest, TagRequest
from treadle.serve.screening import screen
from treadle.serve.table import Chosen
from treadle.text.spans import label_of

_T = TypeVar("_T")
_classify_decoder = msgspec.json.Decoder(ClassifyRequest)
_tag_decoder = msgspec.json.Decoder(TagRequest)
_embeddings_decoder = msgspec.json.Decoder(EmbeddingsRequest)


async def classify(incoming: Incoming) -> None:
    """Answer ``POST /v1/classify``: a label and the probability of each, for every text."""
    body: ClassifyRequest = decode(_classify_decoder, await incoming.body())
    await answered(incoming, body.model, body.user, partial(_classify, body))


async def _classify(body: ClassifyRequest, incoming: Incoming, chosen: Chosen) -> None:
    serving = chosen.serving
    texts = given(body.input)
    if serving.release.asking != "classify":
        raise invalid("model", f"model: {serving.release.name} is not a classifier", code="wrong_endpoint")
    entry, scores, tokens = await run_on_texts(incoming, chosen, body, "classify", texts, serving.engine.classify)
    best = [max(range(len(s.labels)), key=s.probabilities.__getitem__) for s in scores]
    record(
        incoming.gateway,
        serving,
        entry,
        Outcome(
            "ok",
            answers=[s.labels[i] for s, i in zip(scores, best, strict=True)],
            confidence=tuple(s.probabilities[i] for s, i in zip(scores, best, strict=True)),
            finish_reason="stop",
            tokens=tokens,
        ),
    )
    data = [_labelled(index, s, i) for index, (s, i) in enumerate(zip(scores, best, strict=True))]
    await reply_list(incoming, data, entry, serving, tokens)


async def tag(incoming: Incoming) -> None:
    """Answer ``POST /v1/tag``: the spans of every text. The record has them as a label has (``text.spans``)."""
    body: TagRequest = decode(_tag_decoder, await incoming.body())
    await answered(incoming, body.model, body.user, partial(_tag, body))


async def _tag(body: TagRequest, incoming: Incoming, chosen: Chosen) -> None:
    serving = chosen.serving
    texts = given(body.input)
    if serving.release.asking != "tag":
        raise invalid("model", f"model: {serving.release.name} does not tag", code="wrong_endpoint")
    entry, found, tokens = await run_on_texts(incoming, chosen, body, "tag", texts, serving.engine.tag)
    labels = [label_of((span.start, span.end, span.type) for span in spans) for spans in found]
    record(incoming.gateway, serving, entry, Outcome("ok", answers=labels, finish_reason="stop", tokens=tokens))
    data = [
        {"index": index, "spans": [_spanned(text, span) for span in spans]}
        for index, (text, spans) in enumerate(zip(texts, found, strict=True))
    ]
    await reply_list(incoming, data, entry, serving, tokens)


async def embeddings(incoming: Incoming) -> None:
    """Answer ``POST /v1/embeddings``: a vector for every text."""
    body: EmbeddingsRequest = decode(_embeddings_decoder, await incoming.body())
    await answered(incoming, body.model, body.user, partial(_embeddings, body))


async def _embeddings(body: EmbeddingsRequest, incoming: Incoming, chosen: Chosen) -> None:
    serving = chosen.serving
    texts = given(body.input)
    size = body.dimensions
    if serving.engine.name == "upstream" and serving.release.asking != "embed":
        raise _cannot(serving, "embeddings", NotImplementedError())  # or a server's refusal would count as its failure
    if size is not None:
        _check_size(serving, size)
    entry, vectors, tokens = await run_on_texts(incoming, chosen, body, "embeddings", texts, serving.engine.embed)
    record(incoming.gateway, serving, entry, Outcome("ok", finish_reason="stop", tokens=tokens))
    if size is not None:
        vectors = [cut_vector(vector, size) for vector in vectors]
    packed = body.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": i, "embedding": _base64(vector) if packed else vector}
        for i, vector in enumerate(vectors)
    ]
    await reply_list(incoming, data, entry, serving, tokens)


def given(texts: str | list[str]) -> list[str]:
    """The texts of a request, to be screened in place: another release that it goes to is given what was sent."""
    return [texts] if isinstance(texts, str) else [*texts]


async def run_on_texts(
    incoming: Incoming,
    chosen: Chosen,
    body: Body,
    endpoint: str,
    texts: list[str],
    work: Callable[[Sequence[str]], Awaitable[list[_T]]],
    *,
    count: Callable[[Serving, list[str]], Awaitable[Tokens]] | None = None,
    results: int | None = None,
    param: str | Sequence[str] = "input",
) -> tuple[Entry, list[_T], Tokens]:
    """Let the engine do it. What fails or is cancelled is recorded here, what succeeds by the caller.

    ``count`` says how many tokens that takes and raises 400 for what is too long; by default each text stands alone,
    and has a result of its own.
    """
    refuse_in_vain(body)
    serving = chosen.serving
    entry = Entry(
        model=incoming.model,
        request=incoming.request,
        endpoint=endpoint,
        arrived=incoming.arrived,
        messages=[{"role": "user", "content": text} for text in texts],
        share=chosen.share,
        user=body.user,
        key=incoming.key,
        store=body.store is not False,
        metadata=body.metadata,
    )
    became(incoming, entry)
    (shown,) = await screen(incoming, serving, entry, (texts,), param)
    texts[:] = shown  # the caller's too: what comes back is about these
    entry.messages = [{"role": "user", "content": text} for text in texts]
    tokens = Tokens()
    ended: Outcome | None = None
    void = False
    try:
        async with incoming.working(serving, endpoint):
            tokens = await (count or _counted)(serving, texts)
            await clean_long_texts(incoming.gateway, entry)
            most = tokens if tokens.prompt else _guessed(texts)

            def used() -> Tokens | None:
                return None if entry.handed_over is None or void else most

            async with incoming.metered(serving, most, used):
                entry.handed_over = time.perf_counter()
                try:
                    found = await work(texts)
                    _check(found, texts, len(texts) if results is None else results)
                    entry.upstream = _servers(found)
                except Exception as error:
                    if isinstance(error, NotImplementedError | UserError) and not isinstance(error, TooLongError):
                        told = _cannot(serving, endpoint, error)
                        if _asked_in_vain(serving, endpoint, error):
                            entry.handed_over = None  # it did not take it, as when that is known before
                    else:
                        told = translated(error, entry.id)
                    if told.code in FAILED_OVER or told.status == 400:
                        void, tokens = True, Tokens()
                    raise told from error
                return entry, found, tokens
    except ClientLeft:
        ended = Outcome("cancelled", error="client_left", finish_reason="cancelled", tokens=tokens)
        raise
    except ApiError as error:
        status: Status = "cancelled" if error.code in ENDED_BY_US else "failed"
        ended = Outcome(status, error=error.code, finish_reason="error", tokens=tokens)
        raise
    except asyncio.CancelledError:
        ended = Outcome("cancelled", error="cancelled", finish_reason="cancelled", tokens=tokens)
        raise
    finally:
        if ended is not None and entry.handed_over is not None:
            record(incoming.gateway, serving, entry, ended)


def _servers(found: list[Any]) -> dict[str, Any] | None:
    """What the record says of the servers that did it, the first by all that is known of it; None of an engine here."""
    if not isinstance(found, ReportedVectors) or not found.reported:
        return None
    first = found.reported[0]
    told: dict[str, Any] = {"place": first.place, "model": first.model, "fingerprint": first.fingerprint}
    told["attempts"] = max(each.attempts for each in found.reported)
    others = sorted({each.place for each in found.reported} - {first.place})
    return {**told, "others": others} if others else told


async def _counted(serving: Serving, texts: list[str]) -> Tokens:
    """Count the tokens and check each text against the context length. Raises 400."""
    encoder = serving.tokenizer
    if encoder is None:
        return Tokens()

    def count() -> list[int]:
        return [len(encoder.encode(text)) for text in texts]

    counts = await aside(sum(map(len, texts)), count)
    limit = serving.engine.context_length
    if limit and max(counts) > limit:
        raise too_long(limit, max(counts), "input")
    return Tokens(prompt=sum(counts))


def _guessed(texts: list[str]) -> Tokens:
    """For the key's budget where the release says nothing of its tokens: four bytes each, and one at least."""
    return Tokens(prompt=sum(max(1, len(text.encode("utf-8", "surrogatepass")) // 4) for text in texts))


def _check_size(serving: Serving, size: int) -> None:
    """Raises 400 where vectors may not be cut to that size."""
    sizes: VectorSizes | None = getattr(serving.engine, "vector_sizes", None)
    name = serving.release.name
    if sizes is None:
        raise invalid(
            "dimensions",
            f"dimensions: {name} was not trained to have its vectors cut (its config.json names no"
            " matryoshka_dimensions); leave it out",
            code="unsupported_parameter",
        )
    if not sizes.allows(size):
        raise invalid("dimensions", f"dimensions: {name} takes {sizes}; got {size}")


def _check(results: list[Any], texts: list[str], expected: int) -> None:
    """An engine that returns nonsense must not be believed."""
    good = len(results) == expected
    if all(isinstance(result, Score) for result in results):
        good = good and all(result.logprobs and math.isfinite(result.total) for result in results)
        results = []
    for text, result in zip(texts, results, strict=False):
        if isinstance(result, ClassScores):
            good = good and len(result.labels) == len(result.probabilities) > 0
            good = good and all(math.isfinite(p) for p in result.probabilities)
        elif all(isinstance(each, TaggedSpan) for each in result):
            good = good and all(0 <= s.start < s.end <= len(text) and math.isfinite(s.score) for s in result)
        else:
            good = good and all(math.isfinite(x) for x in result)
    if not good:
        raise ApiError(500, "The engine's answer does not fit the request", type=SERVER, code="engine_failed")


def _asked_in_vain(serving: Serving, endpoint: str, error: Exception) -> bool:
    """Whether the engine cannot do that at all; else it says what is wrong with these texts."""
    return not isinstance(error, UserError) or (serving.release.asking == "chat" and endpoint != "score")


def _cannot(serving: Serving, endpoint: str, error: Exception) -> ApiError:
    what = {"embeddings": "embeddings", "tag": "tagging", "score": "scores"}.get(endpoint, "classification")
    said = f"model: {serving.release.name} on the {serving.engine.name} engine cannot do {what}"
    if not _asked_in_vain(serving, endpoint, error):
        said = str(translated(error, ""))
    return invalid("model", said, code="wrong_endpoint")


def _labelled(index: int, scores: ClassScores, best: int) -> dict[str, Any]:
    probabilities = dict(zip(scores.labels, scores.probabilities, strict=True))
    return {"index": index, "label": scores.labels[best], "probabilities": probabilities}


def _spanned(text: str, span: TaggedSpan) -> dict[str, Any]:
    said = text[span.start : span.end]
    return {"start": span.start, "end": span.end, "type": span.type, "text": said, "score": span.score}


async def reply_list(
    incoming: Incoming, data: list[dict[str, Any]], entry: Entry, serving: Serving, tokens: Tokens
) -> None:
    """Send the results, and what gave them."""
    content = {
        "id": entry.id,
        "object": "list",
        "created": int(entry.time.timestamp()),
        "model": serving.release.name,
        "system_fingerprint": serving.release.digest,
        "data": data,
        "usage": usage(tokens),
    }
    await incoming.reply(content, headers=traced(entry.id, serving.release.digest))


def _base64(vector: Sequence[float]) -> str:
    """Little-endian 32-bit floats, as OpenAI's clients ask for."""
    values = array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode()
