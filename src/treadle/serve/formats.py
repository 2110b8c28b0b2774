"""``response_format``: the JSON Schema that an answer is held to, where the engine can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from treadle.serve.errors import invalid, unsupported
from treadle.serve.release import Serving
from treadle.serve.requests import ChatRequest

_MOST_CHARACTERS = 100_000
_ANY_OBJECT = '{"type":"object"}'


def held_schema(body: ChatRequest, serving: Serving) -> str | None:
    """The schema as JSON; None where any text will do. Raises 400."""
    asked = body.response_format
    if asked is None or asked.type == "text":
        return None
    need_schemas(serving, "response_format", "holding an answer to a schema")
    if body.tools and body.tool_choice != "none":
        raise unsupported("response_format", "holding an answer to a schema that may call tools")
    if asked.type == "json_object":
        return _ANY_OBJECT
    if asked.json_schema is None:
        raise invalid("response_format.json_schema", "response_format.json_schema: is required with this type")
    schema = asked.json_schema.schema or {"type": "object"}
    return written_schema(schema, "response_format.json_schema.schema", "response_format")


def need_schemas(serving: Serving, param: str, what: str) -> None:
    """Raises 400 where the engine cannot hold an answer to a schema."""
    if not getattr(serving.engine, "holds_schema", False) or serving.release.asking == "extract":
        raise unsupported(param, f"{what}, on the {serving.engine.name} engine,")


def written_schema(schema: Mapping[str, Any], param: str, said: str) -> str:
    """As JSON. Raises 400."""
    try:
        written = msgspec.json.encode(schema).decode()
    except (ValueError, RecursionError):
        raise invalid(param, f"{said}: cannot be written as JSON") from None
    if len(written) > _MOST_CHARACTERS:
        raise invalid(param, f"{said}: at most {_MOST_CHARACTERS:,} characters")
    return written
