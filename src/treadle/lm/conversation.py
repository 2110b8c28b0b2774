"""A conversation: OpenAI-style messages, with the system prompt that a release puts first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def with_system_prompt(messages: Sequence[Mapping[str, Any]], system_prompt: str | None) -> tuple[dict[str, Any], ...]:
    """The conversation as the model sees it: the system prompt first, unless it has one of its own."""
    plain = tuple(dict(message) for message in messages)
    if not system_prompt or (plain and plain[0]["role"] == "system"):
        return plain
    return ({"role": "system", "content": system_prompt}, *plain)


def with_written_arguments(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of its calls as JSON text, where they are objects."""
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _as_json(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _as_json(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
