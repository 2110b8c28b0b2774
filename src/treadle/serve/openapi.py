"""The served OpenAPI description. Request schemas come from the types that read the requests, so they are true."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from treadle.serve.requests import (
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    EmbeddingsRequest,
    FeedbackRequest,
    TagRequest,
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
_LOGPROBS = {"type": ["object", "null"]}
_REASON = {"enum": ["stop", "length", "content_filter"]}

_RESPONSES: dict[str, Any] = {
    "Error": _object({"error": _object({"message": _TEXT, "type": _TEXT, "param": _NULLABLE, "code": _NULLABLE})}),
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
                        "message": _object({"role": _TEXT, "content": _TEXT, "refusal": _NULLABLE}),
                        "logprobs": _LOGPROBS,
                        "finish_reason": _REASON,
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
    ("/v1/feedback", "post", FeedbackRequest, "Feedback", "Say what an answer was worth."),
    ("/v1/models", "get", None, "Models", "The models that answer here."),
    ("/v1/models/{model}", "get", None, "Model", "One model, by its name, NAME, NAME@alias or digest."),
    ("/metrics", "get", None, "", "Prometheus metrics."),
    ("/health/live", "get", None, "Health", "200 while the process lives."),
    ("/health/ready", "get", None, "Health", "200 while requests are answered, 503 otherwise."),
)
_OPEN = ("/health/live", "/health/ready")
_STREAMS = ("ChatCompletion", "Completion")


@cache
def document(*, keyed: bool) -> dict[str, Any]:
    """OpenAPI 3.1. ``keyed``: the server asks for an API key."""
    kinds = [kind for _, _, kind, _, _ in _OPERATIONS if kind is not None]
    references, schemas = msgspec.json.schema_components(kinds, ref_template=_REF + "{name}")
    by_kind = dict(zip(kinds, references, strict=True))
    paths: dict[str, Any] = {}
    for path, method, kind, answer, summary in _OPERATIONS:
        operation: dict[str, Any] = {"summary": summary, "responses": _responses(path, answer)}
        if kind is not None:
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": by_kind[kind]}}}
        if path == "/v1/models/{model}":
            operation["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": _TEXT}]
        if keyed and path not in _OPEN:
            operation["security"] = [{"key": []}]
        paths[path] = {method: operation}
    components: dict[str, Any] = {"schemas": {**schemas, **_RESPONSES}}
    if keyed:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Treadle", "version": "1", "description": "OpenAI's API, plus context and feedback."},
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
