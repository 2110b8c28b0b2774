"""``/v1/score`` and ``/v1/rerank``: how well two texts go together, as the release's own kind of model tells it.

Vectors by their cosine; a generator by how likely the second text is as its answer to the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from treadle.core.errors import UserError
from treadle.lm.engine import Score
from treadle.record.interaction import Tokens
from treadle.serve.aside import aside
from treadle.serve.entry import Entry, Outcome, record
from treadle.serve.errors import from_user_error, invalid, too_long
from treadle.serve.fallback import answered
from treadle.serve.generate import decode
from treadle.serve.incoming import Incoming
from treadle.serve.release import Encoder, Serving
from treadle.serve.replies import traced, usage
from treadle.serve.requests import Body, RerankRequest, ScoreRequest
from treadle.serve.table import Chosen
from treadle.serve.tasks import given, reply_list, run_on_texts

_score_decoder = msgspec.json.Decoder(ScoreRequest)
_rerank_decoder = msgspec.json.Decoder(RerankRequest)
_SCORED = "embed"
_NOT_SCORED = ("classify", "tag", "extract")


async def score(incoming: Incoming) -> None:
    """Answer ``POST /v1/score``: a number for each pair of texts."""
    body: ScoreRequest = decode(_score_decoder, await incoming.body())
    await answered(incoming, body.model, body.user, partial(_score, body))


async def _score(body: ScoreRequest, incoming: Incoming, chosen: Chosen) -> None:
    first, second = given(body.text_1), given(body.text_2)
    if len(first) not in (1, len(second)):
        raise invalid("text_2", f"text_2: {len(second)} texts, and text_1 has {len(first)}; expected as many, or one")
    entry, found, tokens = await _scored(
        incoming, chosen, body, {"text_1": first, "text_2": second}, raw=bool(body.raw)
    )
    data = [{"index": index, "object": "score", **each} for index, each in enumerate(found)]
    await reply_list(incoming, data, entry, chosen.serving, tokens)


async def rerank(incoming: Incoming) -> None:
    """Answer ``POST /v1/rerank``, in the shape that Jina, Cohere and vLLM share: the best document first."""
    body: RerankRequest = decode(_rerank_decoder, await incoming.body())
    await answered(incoming, body.model, body.user, partial(_rerank, body))


async def _rerank(body: RerankRequest, incoming: Incoming, chosen: Chosen) -> None:
    serving, documents = chosen.serving, given(body.documents)
    entry, found, tokens = await _scored(
        incoming, chosen, body, {"query": [body.query], "documents": documents}, raw=False
    )
    order = sorted(range(len(found)), key=lambda place: -found[place]["score"])[: body.top_n]
    shown = body.return_documents is not False
    results = [
        {"index": place, "relevance_score": found[place]["score"]}
        | ({"document": {"text": documents[place]}} if shown else {})
        for place in order
    ]
    content = {
        "id": entry.id,
        "model": serving.release.name,
        "system_fingerprint": serving.release.digest,
        "results": results,
        "usage": usage(tokens),
    }
    await incoming.reply(content, headers=traced(entry.id, serving.release.digest))


async def _scored(
    incoming: Incoming, chosen: Chosen, body: Body, both: dict[str, list[str]], *, raw: bool
) -> tuple[Entry, list[dict[str, Any]], Tokens]:
    """A ``score`` for each text of the second of ``both``, lists by their names in the request, which are left as the
    guardrails leave them."""
    serving = chosen.serving
    asking = serving.release.asking
    if asking in _NOT_SCORED:
        said = f"model: {serving.release.name} reads one text at a time and scores no pairs; see /openapi.json"
        raise invalid("model", said, code="wrong_endpoint")
    if raw and asking == _SCORED:
        raise invalid("raw", "raw: is for models that write text; leave it out")
    first, second = both.values()
    texts, names = [*first, *second], [name for name, each in both.items() for _ in each]
    if asking == _SCORED:
        entry, vectors, tokens = await run_on_texts(
            incoming, chosen, body, "score", texts, serving.engine.embed, param=names
        )
        heads, tails = vectors[: len(first)], vectors[len(first) :]
        found: list[dict[str, Any]] = [
            {"score": _cosine(heads[place % len(heads)], tail)} for place, tail in enumerate(tails)
        ]
    else:
        pairs = _Pairs(len(first), raw=raw)

        async def likelihoods(_: Sequence[str]) -> list[Score]:
            return await serving.engine.score(pairs.encoded)

        entry, scores, tokens = await run_on_texts(
            incoming,
            chosen,
            body,
            "score",
            texts,
            likelihoods,
            count=pairs.count,
            results=len(second),
            param=names,
        )
        found = [{"score": each.total, "tokens": len(each.logprobs)} for each in scores]
    first[:], second[:] = texts[: len(first)], texts[len(first) :]
    record(incoming.gateway, serving, entry, Outcome("ok", finish_reason="stop", tokens=tokens))
    return entry, found, tokens


class _Pairs:
    """Prompts and answers of a generator as tokens. ``firsts``: so many of the texts are prompts."""

    def __init__(self, firsts: int, *, raw: bool) -> None:
        self.encoded: list[tuple[list[int], list[int]]] = []
        self._firsts = firsts
        self._raw = raw

    async def count(self, serving: Serving, texts: list[str]) -> Tokens:
        """Tokenize, and check against the context length. Raises 400."""
        encoder = serving.tokenizer
        if encoder is None:
            raise invalid("model", f"model: {serving.release.name} has no tokenizer here", code="wrong_endpoint")
        first, second = texts[: self._firsts], texts[self._firsts :]

        def encode() -> list[tuple[list[int], list[int]]]:
            system = serving.release.system_prompt
            return [self._pair(encoder, system, first[place % len(first)], text) for place, text in enumerate(second)]

        size = sum(map(len, second)) + sum(map(len, first)) * len(second) // len(first)
        try:
            self.encoded = await aside(size, encode)
        except UserError as error:
            raise from_user_error(error) from None
        limit = serving.engine.context_length
        for place, (prompt, answer) in enumerate(self.encoded):
            if limit and len(answer) > encoder.room(limit, len(prompt)):
                raise too_long(limit, len(prompt) + len(answer), None, "A pair of texts")
            if not answer:
                raise invalid("text_2", f"text_2[{place}]: has no token of its own behind text_1")
        return Tokens(prompt=sum(len(prompt) + len(answer) for prompt, answer in self.encoded))

    def _pair(self, encoder: Encoder, system: str | None, asked: str, answer: str) -> tuple[list[int], list[int]]:
        if self._raw:
            return encoder.encode_pair(asked, answer)
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        return encoder.encode_answer([*([{"role": "system", "content": system}] if system else []), *turns])


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """0 beside a vector of zeros, which is what a text without tokens has."""
    lengths = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(x * x for x in other))
    return sum(x * y for x, y in zip(one, other, strict=True)) / lengths if lengths > 0 else 0.0
