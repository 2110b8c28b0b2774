"""SageMaker's contract with a container: ``GET /ping`` and ``POST /invocations``, whatever the body is.

    {"messages": ...}, {"prompt": ...}, {"input": ...}    OpenAI's own, answered as such, also in a stream
    {"text_1": ..., "text_2": ...}, {"query": ...}        as /v1/score and /v1/rerank take them
    {"inputs": ..., "parameters": {...}}                  as Hugging Face's containers take and answer it
    text/plain                                            one text; answered in plain text where that is accepted

The platform lets one header of an answer through to its client, and there the interaction's id stands.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from treadle.serve.contracts.asking import Given, Instance, Parameters, Prediction, Predictions, predict, refused_media
from treadle.serve.contracts.contract import Contract, ContractPath, Handler
from treadle.serve.errors import invalid, unsupported
from treadle.serve.generate import chat, completions, decode
from treadle.serve.incoming import Incoming
from treadle.serve.probes import ready
from treadle.serve.release import ServedRelease
from treadle.serve.requests import ChatRequest, CompletionRequest, EmbeddingsRequest, Name, RerankRequest, ScoreRequest
from treadle.serve.scoring import rerank, score
from treadle.serve.served_model import ServedModel
from treadle.serve.tasks import classify, embeddings, tag

_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
_MOST_ATTRIBUTES = 1024  # characters that the platform passes on
_TEXT_KEYS = {"summarize": "summary_text", "translate": "translation_text"}
_BY_ASKING: dict[str, Handler] = {"classify": classify, "tag": tag, "embed": embeddings}
_SAMPLED = 1.0  # the temperature of `do_sample`, as transformers has it


class HuggingFaceParameters(Parameters, kw_only=True):
    """Those of a pipeline. ``top_k`` labels of a classifier, all where it is 0; what is not done here is refused."""

    do_sample: bool | None = None
    return_full_text: bool | None = None
    details: bool | None = None
    top_k: Annotated[int, Meta(ge=0, le=1000)] | None = None


class HuggingFaceRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """``{"inputs": ...}``: a text, a question with its context, or a list of such. ``model`` is ours: the platform has
    one behind an endpoint."""

    inputs: Given | Annotated[list[Given], Meta(min_length=1, max_length=256)]
    model: Name | None = None
    parameters: HuggingFaceParameters | None = None


_decoder = msgspec.json.Decoder(HuggingFaceRequest)
_peeking = msgspec.json.Decoder(dict[str, msgspec.Raw])


async def _invocations(incoming: Incoming) -> None:
    kind = (incoming.header("content-type") or "application/json").partition(";")[0].strip().lower()
    data = await incoming.body()
    if kind == "text/plain":
        await _plain(incoming, data)
        return
    if kind != "application/json":
        raise refused_media(("application/json", "text/plain"))
    fields = decode(_peeking, data)
    if "inputs" in fields:
        await _hugging_face(incoming, decode(_decoder, data))
        return
    ours = _ours(incoming, fields)
    if ours is None:
        raise invalid(None, "The body needs messages, prompt, input, text_1, query or inputs; see /openapi.json")
    incoming.given = data
    await ours(incoming)


def _ours(incoming: Incoming, fields: dict[str, Any]) -> Handler | None:
    if "messages" in fields:
        return chat
    if "prompt" in fields:
        return completions
    if "text_1" in fields:
        return score
    if "query" in fields:
        return rerank
    if "input" in fields:
        return _BY_ASKING.get(_model_asked(incoming, fields).serving.release.asking, embeddings)
    return None


def _model_asked(incoming: Incoming, fields: dict[str, Any]) -> ServedModel:
    try:
        named = msgspec.json.decode(fields.get("model", b"null"), type=Name | None)
    except msgspec.DecodeError:  # the handler says so
        named = None
    return incoming.gateway.model_of(incoming.asked(named))


async def _plain(incoming: Incoming, data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise invalid(None, "The body is not valid UTF-8") from None
    if not text.strip():
        raise invalid(None, "The body is empty; expected a text")
    found = await predict(incoming, [text], Parameters(), incoming.choose(None, None))
    if (incoming.header("accept") or "").partition(";")[0].strip().lower() == "text/plain":
        value = found.found[0].columns.get("text") or found.found[0].columns.get("label")
        if isinstance(value, str):
            await incoming.reply_bytes(value.encode(), "text/plain; charset=utf-8", headers=_headers(found))
            return
    await incoming.reply(_told(found), headers=_headers(found))


async def _hugging_face(incoming: Incoming, body: HuggingFaceRequest) -> None:
    given = body.parameters or HuggingFaceParameters()
    for name in ("return_full_text", "details"):
        if getattr(given, name):
            raise unsupported(f"parameters.{name}", "more than the new text")
    parameters = Parameters(**{name: getattr(given, name) for name in Parameters.__struct_fields__})
    chosen = incoming.choose(body.model, parameters.user)
    release = chosen.serving.release
    if given.top_k is not None and release.asking != "classify":
        raise unsupported("parameters.top_k", f"a choice of labels, of which {release.name} gives none,")
    if given.do_sample and given.temperature is None and not release.temperature:
        parameters.temperature = _SAMPLED
    if given.do_sample and given.temperature == 0:
        raise invalid("parameters.do_sample", "parameters.do_sample: contradicts temperature; send one of them")
    if given.do_sample is False:
        if given.temperature:
            raise invalid("parameters.do_sample", "parameters.do_sample: contradicts temperature; send one of them")
        parameters.temperature = 0.0
    several = isinstance(body.inputs, list)
    instances: list[str | Instance] = list(body.inputs) if isinstance(body.inputs, list) else [body.inputs]
    found = await predict(incoming, instances, parameters, chosen)
    await incoming.reply(_told(found, several=several, top_k=given.top_k), headers=_headers(found))


def _told(found: Predictions, *, several: bool = False, top_k: int | None = None) -> Any:
    """As the pipeline of the task says it: a list, but for one question the answer alone."""
    values = [_value(found.release, each, top_k) for each in found.found]
    flat = found.release.asking in ("extract", "tag") or top_k is not None
    return values[0] if flat and not several else values


def _value(release: ServedRelease, each: Prediction, top_k: int | None) -> Any:
    columns = each.columns
    if "text" in columns:
        key = "answer" if release.asking == "extract" else _TEXT_KEYS.get(release.task, "generated_text")
        return {key: columns["text"]}
    if "label" in columns:
        if top_k is None:
            return {"label": columns["label"], "score": columns["score"]}
        ordered = sorted(columns["probabilities"].items(), key=lambda pair: -pair[1])
        return [{"label": label, "score": score} for label, score in ordered[: top_k or None]]
    if "spans" in columns:
        return [
            {"entity_group": s["type"], "score": s["score"], "word": s["text"], "start": s["start"], "end": s["end"]}
            for s in columns["spans"]
        ]
    return columns["embedding"]


def _headers(found: Predictions) -> dict[str, str]:
    ids = ",".join(found.interactions)
    return found.headers() | ({_ATTRIBUTES: ids} if len(ids) <= _MOST_ATTRIBUTES else {})


CONTRACT = Contract(
    "SageMaker",
    (
        ContractPath("GET", "/ping", ready, "SageMaker: 200 while requests are answered.", is_open=True, is_probe=True),
        ContractPath(
            "POST",
            "/invocations",
            _invocations,
            "SageMaker: OpenAI's bodies, Hugging Face's, or a text.",
            "sagemaker",
            takes=(
                HuggingFaceRequest,
                ChatRequest,
                CompletionRequest,
                EmbeddingsRequest,
                ScoreRequest,
                RerankRequest,
            ),
            gives={},
            takes_also=("text/plain",),
            gives_also=("text/plain", "text/event-stream"),
        ),
    ),
)
