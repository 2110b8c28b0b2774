"""The served OpenAPI description. Request schemas come from the types that read the requests, so they are true."""

from __future__ import annotations

import re
from functools import cache
from inspect import cleandoc
from typing import Any

import msgspec

from treadle.serve.contracts import contracts
from treadle.serve.contracts.contract import Contract, ContractPath, one_line
from treadle.serve.requests import (
    NEUTRAL,
    ChatMessage,
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    ContentPart,
    EmbeddingsRequest,
    FeedbackRequest,
    RerankRequest,
    ScoreRequest,
    TagRequest,
    unsupported_fields,
)

_REF = "#/components/schemas/"


def _object(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), **more}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _REF + name}


_TEXT: dict[str, Any] = {"type": "string"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_SHARE: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
_NULLABLE: dict[str, Any] = {"type": ["string", "null"]}
_HEAD = {"id": _TEXT, "object": _TEXT, "created": _COUNT, "model": _TEXT, "system_fingerprint": _TEXT}
_NUMBER: dict[str, Any] = {"type": "number"}
_TOKEN: dict[str, Any] = {"token": _TEXT, "logprob": _NUMBER, "bytes": {"type": "array", "items": _COUNT}}
_CHAT_LOGPROBS = {
    "type": ["object", "null"],
    "properties": {"content": _list(_object({**_TOKEN, "top_logprobs": _list(_object(_TOKEN))}))},
}
_LOGPROBS = {
    "type": ["object", "null"],
    "properties": {
        "tokens": _list(_TEXT),
        "token_logprobs": _list(_NUMBER),
        "top_logprobs": {"type": ["array", "null"], "items": {"type": "object", "additionalProperties": _NUMBER}},
        "text_offset": _list(_COUNT),
    },
}
_REASON = {"enum": ["stop", "length", "content_filter"]}
_CALL = _object({"id": _TEXT, "type": {"enum": ["function"]}, "function": _object({"name": _TEXT, "arguments": _TEXT})})
_MESSAGE = {
    "type": "object",
    "properties": {"role": _TEXT, "content": _NULLABLE, "refusal": _NULLABLE, "tool_calls": _list(_CALL)},
    "required": ["role", "content", "refusal"],
}

_RESPONSES: dict[str, Any] = {
    "Error": _object({"error": _object({"message": _TEXT, "type": _TEXT, "param": _NULLABLE, "code": _NULLABLE})}),
    "Refusal": _object(
        {"error": _TEXT}, description="An error as TensorFlow Serving and the Open Inference Protocol say it."
    ),
    "Usage": {
        "type": "object",
        "properties": {
            "prompt_tokens": _COUNT,
            "completion_tokens": _COUNT,
            "total_tokens": _COUNT,
            "prompt_tokens_details": _object({"cached_tokens": _COUNT}),
        },
        "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
    },
    "ChatCompletion": _object(
        {
            **_HEAD,
            "choices": _list(
                _object(
                    {
                        "index": _COUNT,
                        "message": _MESSAGE,
                        "logprobs": _CHAT_LOGPROBS,
                        "finish_reason": {"enum": [*_REASON["enum"], "tool_calls"]},
                    }
                )
            ),
            "usage": _ref("Usage"),
        },
        description="`id` is the interaction, `system_fingerprint` the digest of the release that answered.",
    ),
    "Completion": _object(
        {
            **_HEAD,
            "choices": _list(
                _object({"index": _COUNT, "text": _TEXT, "logprobs": _LOGPROBS, "finish_reason": _REASON})
            ),
            "usage": _ref("Usage"),
        }
    ),
    "Classification": _object(
        {
            **_HEAD,
            "data": _list(
                _object(
                    {
                        "index": _COUNT,
                        "label": _TEXT,
                        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
                    }
                )
            ),
            "usage": _ref("Usage"),
        }
    ),
    "Tagging": _object(
        {
            **_HEAD,
            "data": _list(
                _object(
                    {
                        "index": _COUNT,
                        "spans": _list(
                            _object({"start": _COUNT, "end": _COUNT, "type": _TEXT, "text": _TEXT, "score": _SHARE})
                        ),
                    }
                )
            ),
            "usage": _ref("Usage"),
        },
        description="`start` and `end` count characters (Unicode code points); `score` is the span's probability.",
    ),
    "Embeddings": _object(
        {
            **_HEAD,
            "data": _list(
                _object(
                    {
                        "object": _TEXT,
                        "index": _COUNT,
                        "embedding": {"anyOf": [_list({"type": "number"}), _TEXT]},
                    }
                )
            ),
            "usage": _ref("Usage"),
        }
    ),
    "Scores": _object(
        {
            **_HEAD,
            "data": _list(
                {
                    "type": "object",
                    "properties": {"index": _COUNT, "object": _TEXT, "score": _NUMBER, "tokens": _COUNT},
                    "required": ["index", "object", "score"],
                }
            ),
            "usage": _ref("Usage"),
        },
        description="`score` is a cosine, or a log-likelihood in nats over `tokens` tokens.",
    ),
    "Ranking": _object(
        {
            "id": _TEXT,
            "model": _TEXT,
            "system_fingerprint": _TEXT,
            "results": _list(
                {
                    "type": "object",
                    "properties": {
                        "index": _COUNT,
                        "relevance_score": _NUMBER,
                        "document": _object({"text": _TEXT}),
                    },
                    "required": ["index", "relevance_score"],
                }
            ),
            "usage": _ref("Usage"),
        },
        description="The best document first; `index` is its place in the request.",
    ),
    "Feedback": _object({"id": _TEXT, "object": _TEXT, "interaction": _TEXT, "kind": _TEXT, "time": _TEXT}),
    "Model": _object(
        {
            "id": _TEXT,
            "object": _TEXT,
            "created": _COUNT,
            "owned_by": _TEXT,
            "digest": _TEXT,
            "aliases": _list(_TEXT),
            "share": {"type": "number", "minimum": 0, "maximum": 1},
            "task": _TEXT,
            "context_length": _COUNT,
        }
    ),
    "Models": _object({"object": _TEXT, "data": _list(_ref("Model"))}),
    "Health": _object({"status": _TEXT}),
}
# path, method, request type, answer, what it does
_OPERATIONS: tuple[tuple[str, str, type[msgspec.Struct] | None, str, str], ...] = (
    ("/v1/chat/completions", "post", ChatRequest, "ChatCompletion", "Answer a conversation."),
    ("/v1/completions", "post", CompletionRequest, "Completion", "Continue a text."),
    ("/v1/classify", "post", ClassifyRequest, "Classification", "Label texts."),
    ("/v1/tag", "post", TagRequest, "Tagging", "Find spans in texts."),
    ("/v1/embeddings", "post", EmbeddingsRequest, "Embeddings", "Turn texts into vectors."),
    ("/v1/score", "post", ScoreRequest, "Scores", "Score pairs of texts."),
    ("/v1/rerank", "post", RerankRequest, "Ranking", "Put documents in order for a query."),
    ("/v1/feedback", "post", FeedbackRequest, "Feedback", "Say what an answer was worth."),
    ("/v1/models", "get", None, "Models", "The models that answer here."),
    ("/v1/models/{model}", "get", None, "Model", "One model, by its name, NAME, NAME@alias or digest."),
    ("/metrics", "get", None, "", "Prometheus metrics."),
    ("/health/live", "get", None, "Health", "200 while the process lives."),
    ("/health/ready", "get", None, "Health", "200 while requests are answered, 503 otherwise."),
)
_ABOUT = "OpenAI's API, plus context and feedback; and the contracts of the platforms that it runs on."
_OPEN = ("/health/live", "/health/ready")
_STREAMS = ("ChatCompletion", "Completion")


def document(*, keyed: bool) -> dict[str, Any]:
    """OpenAPI 3.1. ``keyed``: the server asks for an API key."""
    return _document(keyed, tuple(path.path for contract in contracts() for path in contract.paths))


@cache
def _document(keyed: bool, _paths: tuple[str, ...]) -> dict[str, Any]:
    platforms = [(contract, path) for contract in contracts() for path in contract.paths]
    kinds: list[type[msgspec.Struct]] = [kind for _, _, kind, _, _ in _OPERATIONS if kind is not None]
    kinds += [kind for _, path in platforms for kind in path.takes]
    kinds = list(dict.fromkeys(kinds))
    references, schemas = msgspec.json.schema_components(kinds, ref_template=_REF + "{name}")
    for schema in schemas.values():
        if "description" in schema:
            schema["description"] = cleandoc(schema["description"])
    by_kind = dict(zip(kinds, references, strict=True))
    parts: list[type[msgspec.Struct]] = [ChatMessage, ContentPart]
    for each_kind in kinds + parts:
        for name in unsupported_fields(each_kind):
            schemas[each_kind.__name__]["properties"][name] = {"enum": [None, *NEUTRAL[name]]}
    paths: dict[str, Any] = {}
    for path, method, kind, answer, summary in _OPERATIONS:
        operation: dict[str, Any] = {"summary": summary, "responses": _responses(path, answer)}
        if kind is not None:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": by_kind[kind]}}}
        if path == "/v1/models/{model}":
            operation["parameters"] = _in_path(path)
        if keyed and path not in _OPEN:
            operation["security"] = [{"key": []}]
        paths[path] = {method: operation}
    for contract, each in platforms:
        operation = _of_contract(contract, each, by_kind)
        if keyed and not each.is_open:
            operation["security"] = [{"key": []}]
        paths.setdefault(each.path, {}).setdefault(each.method.lower(), operation)  # the first counts, as in routing
    components: dict[str, Any] = {"schemas": {**schemas, **_RESPONSES}}
    if keyed:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Treadle", "version": "1", "description": _ABOUT},
        "paths": paths,
        "components": components,
    }


def _responses(path: str, answer: str) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _ref(answer)}}
    if not answer:
        content = {"text/plain": {"schema": _TEXT}}
    if answer in _STREAMS:
        content["text/event-stream"] = {"schema": _TEXT}
    error = {"description": "An error.", "content": {"application/json": {"schema": _ref("Error")}}}
    good = {"description": "Done.", "content": content}
    if path == "/health/ready":
        return {"200": good, "503": good}
    if path == "/v1/feedback":
        return {"201": good, "200": good | {"description": "The same was said before."}, "default": error}
    return {"200": good, "default": error}


def _of_contract(contract: Contract, path: ContractPath, by_kind: dict[type[msgspec.Struct], Any]) -> dict[str, Any]:
    """The operation at one of a platform's paths."""
    content = {"application/json": {"schema": path.gives}} | {kind: {"schema": _TEXT} for kind in path.gives_also}
    good = {"description": "Done.", "content": content}
    said = _ref("Refusal" if contract.told is one_line else "Error")
    error = {"description": "An error.", "content": {"application/json": {"schema": said}}}
    operation: dict[str, Any] = {"summary": path.summary, "responses": {"200": good, "default": error}}
    if path.is_probe:
        good = {"description": "Done.", "content": {"application/json": {"schema": _ref("Health")}}}
        operation["responses"] = {"200": good, "503": good}
    if path.takes:
        schemas = [by_kind[kind] for kind in path.takes]
        body = {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}
        body |= {kind: {"schema": _TEXT} for kind in path.takes_also}
        operation["requestBody"] = {"required": True, "content": body}
    if "{" in path.path:
        operation["parameters"] = _in_path(path.path)
    return operation


def _in_path(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", path)
    return [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names]
