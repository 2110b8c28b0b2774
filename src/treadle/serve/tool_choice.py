"""``tool_choice``: the call that an answer is held to, where the engine can.

Such an answer is the call alone, as JSON that `read_calls` knows: ``{"name": "weather", "arguments": {...}}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from treadle.serve.errors import invalid
from treadle.serve.formats import need_schemas, written_schema
from treadle.serve.release import Serving
from treadle.serve.requests import ChatRequest, ToolChoice

_DATA = frozenset({"const", "default", "enum", "examples"})  # what stands in these is no schema
_NAMED = frozenset({"$defs", "definitions", "patternProperties", "properties"})  # schemas by names of the client's own
_JOINED = frozenset({"$ref", "allOf", "anyOf", "oneOf"})


def demanded_calls(body: ChatRequest, serving: Serving) -> tuple[int, ...]:
    """Places in ``tools`` of the functions of which one has to be called; none where the model decides. Raises 400."""
    choice = body.tool_choice
    if choice is None or choice in ("none", "auto"):
        return ()
    need_schemas(serving, "tool_choice", "holding an answer to a call")
    names = [tool.function.name for tool in body.tools or ()]
    if not names:
        raise invalid("tool_choice", "tool_choice: only goes with tools")
    if not isinstance(choice, ToolChoice):
        return tuple(range(len(names)))
    if choice.function.name not in names:
        raise invalid("tool_choice.function.name", "tool_choice.function.name: expected the name of one of tools")
    return (names.index(choice.function.name),)


def is_strict(body: ChatRequest, serving: Serving) -> bool:
    """Whether the model decides whether to call, and is held to a schema where it does. Raises 400."""
    if body.tool_choice not in (None, "auto"):
        return False
    for place, tool in enumerate(body.tools or ()):
        if tool.function.strict:
            need_schemas(serving, f"tools[{place}].function.strict", "holding a call to its schema")
            return True
    return False


def call_schema(tools: Sequence[Mapping[str, Any]], places: Sequence[int]) -> str:
    """As JSON, the schema of an answer that calls one of the functions at these places. Raises 400."""
    calls: list[dict[str, Any]] = []
    parameters: dict[str, Any] = {}
    param = "tools"
    try:
        for place in places:
            param = f"tools[{place}].function.parameters"
            parameters[f"f{place}"] = _arguments(tools[place]["function"].get("parameters") or {}, place, param)
            calls.append(_call(tools[place]["function"]["name"], f"#/$defs/f{place}"))
    except RecursionError:
        raise invalid(param, f"{param}: nested too deeply") from None
    held = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return written_schema({**held, "$defs": parameters}, "tools", "tools")


def _call(name: str, arguments: str) -> dict[str, Any]:
    properties = {"name": {"const": name}, "arguments": {"$ref": arguments}}
    required = ["name", "arguments"]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _arguments(parameters: Mapping[str, Any], place: int, param: str) -> dict[str, Any]:
    """The schema of a function's arguments, which are an object, for a place of its own in another schema."""
    if parameters.get("type", "object") != "object":
        raise invalid(f"{param}.type", f"{param}.type: expected object, which is what arguments are")
    moved: dict[str, Any] = _moved(dict(parameters), f"#/$defs/f{place}")
    return moved if _JOINED & moved.keys() else {"type": "object", **moved}


def _moved(schema: Any, to: str) -> Any:
    """A schema that stands elsewhere now, with its references to itself pointing there."""
    if isinstance(schema, list):
        return [_moved(each, to) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and value.startswith("#"):
            moved[key] = to + value[1:]
        elif key in _NAMED and isinstance(value, dict):
            moved[key] = {name: _moved(each, to) for name, each in value.items()}
        else:
            moved[key] = value if key in _DATA else _moved(value, to)
    return moved
