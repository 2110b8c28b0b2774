"""Calls of tools in a conversation, as OpenAI writes them, and their answers: read and held to account.

Kept is one form: the assistant's message has ``tool_calls`` (``id``, ``type``, ``function`` with ``name`` and
``arguments`` as an object), and a message of the role ``tool`` follows for each, with its ``tool_call_id`` and the
function's ``name``. Read are also the older ``function_call`` and ShareGPT's ``function_call`` and ``observation``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]

_ANSWERS = {"tool", "function", "observation", "function_response"}
_CALLS = {"function_call", "tool_call"}
_MOST_CALLS = 128
_MOST_CHARACTERS = 1 << 20  # of one call's arguments
_MOST_TOOLS = 1_024
_WRITTEN = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


class ToolCallError(ValueError):
    """Why a call or its answer cannot be used, in words that do not quote it."""


def tool_message(turn: Mapping[str, Any], content: str, place: int) -> Message | None:
    """The message of a turn that calls tools or answers a call; None for any other. ``content`` is what it says."""
    role = turn.get("from", "") if "from" in turn and "role" not in turn else turn.get("role", "")
    if not isinstance(role, str):
        return None
    if role in _ANSWERS:
        given = {key: turn.get(key) for key in ("tool_call_id", "name")}
        return {"role": "tool", "content": content, **{key: str(value) for key, value in given.items() if value}}
    calls: Any
    if role in _CALLS:
        written, content = _parsed(content, place), ""
        calls = written if isinstance(written, list) else [written]
    elif turn.get("tool_calls"):
        calls = turn["tool_calls"]
    elif turn.get("function_call"):
        calls = [turn["function_call"]]
    else:
        return None
    if role not in ("assistant", "gpt", "model", *_CALLS):
        raise ToolCallError(f"message {place} calls a tool and is not the assistant's")
    if not isinstance(calls, list | tuple) or len(calls) > _MOST_CALLS:
        raise ToolCallError(f"message {place} does not hold a list of at most {_MOST_CALLS} calls")
    made = [_call(call, place, number) for number, call in enumerate(calls)]
    if len({call["id"] for call in made}) != len(made):
        raise ToolCallError(f"message {place} has two calls of one id")
    return {"role": "assistant", "content": content, "tool_calls": made}


def answered(turns: Sequence[Message], first: int) -> list[tuple[int, str]]:
    """Place and role of each turn, with a call, its answers and what is said of them as one. Answers get the id and
    the name of their call where they have none. ``first`` is the place of the first turn.
    """
    told: list[tuple[int, str]] = []
    at = 0
    while at < len(turns):
        turn, place = turns[at], first + at
        if turn["role"] == "tool":
            raise ToolCallError(f"message {place} is a tool's, and no call waits for it")
        told.append((place, turn["role"]))
        at += 1
        waiting = {call["id"]: call["function"]["name"] for call in turn.get("tool_calls", ())}
        if not waiting or at == len(turns):  # a conversation may end with a call
            continue
        while at < len(turns) and turns[at]["role"] == "tool":
            _match(turns[at], waiting, first + at)
            at += 1
        if waiting:
            raise ToolCallError(f"message {place} has {len(waiting)} calls that no message answers")
        if at == len(turns):
            told.append((first + at - 1, "tool"))
        elif turns[at]["role"] != "assistant":
            raise ToolCallError(f"message {first + at} is the {turns[at]['role']}'s where the assistant should speak")
        else:
            told.pop()
    return told


def declared(value: Any) -> tuple[dict[str, Any], ...]:
    """The functions that a row declares under ``tools``, as OpenAI describes them; none where it holds something
    else. Also as JSON text, and without the frame around each ``function``.
    """
    if isinstance(value, str) and value.lstrip().startswith("[") and len(value) <= _MOST_CHARACTERS:
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return ()
    if not isinstance(value, list | tuple) or len(value) > _MOST_TOOLS:
        return ()
    found = []
    for tool in value:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            return ()
        found.append({"type": "function", "function": dict(function)})
    return tuple(found)


def spoken(message: Mapping[str, Any]) -> str:
    """What a message says, with its calls as JSON, one a line."""
    calls = [json.dumps(call["function"], ensure_ascii=False) for call in message.get("tool_calls") or ()]
    return "\n".join([message["content"], *calls] if message["content"] else calls)


def read_calls(answer: str) -> tuple[str, list[dict[str, Any]]]:
    """What a model's answer says besides calls, and the calls in it: between ``<tool_call>`` tags, or all of it as
    JSON with a ``name`` and ``arguments`` (or ``parameters``). What is no call stays text.
    """
    if len(answer) > _MOST_CHARACTERS:
        return answer, []
    calls: list[dict[str, Any]] = []

    def taken(found: re.Match[str]) -> str:
        made = _read_call(found[1], len(calls))
        calls.extend(made)
        return "" if made else found[0]

    said = _WRITTEN.sub(taken, answer)
    if not calls and answer.lstrip()[:1] in ("{", "["):
        calls = _read_call(answer, 0)
        said = "" if calls else said
    return (said.strip() if calls else said), calls


def same_calls(wanted: Sequence[Mapping[str, Any]], made: Sequence[Mapping[str, Any]]) -> bool:
    """Whether two lists call the same functions with the same arguments, as JSON compares, in one order."""

    def plain(calls: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
        functions = [call["function"] for call in calls]
        return [(each["name"], json.dumps(each["arguments"], sort_keys=True)) for each in functions]

    return plain(wanted) == plain(made)


def _read_call(text: str, number: int) -> list[dict[str, Any]]:
    try:
        written = _parsed(text, 0)
    except ToolCallError:
        return []
    found = written if isinstance(written, list) else [written]
    if not found or number + len(found) > _MOST_CALLS:
        return []
    if not all(isinstance(each, dict) and ("arguments" in each or "parameters" in each) for each in found):
        return []
    given = [{"name": each.get("name"), "arguments": each.get("arguments", each.get("parameters"))} for each in found]
    try:
        return [_call(each, 0, number + at) for at, each in enumerate(given)]
    except ToolCallError:
        return []


def _call(call: Any, place: int, number: int) -> dict[str, Any]:
    function: Any = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise ToolCallError(f"message {place} calls a tool without a name")
    given = function.get("arguments")
    arguments = _parsed(given, place) if isinstance(given, str) and given.strip() else given or {}
    if not isinstance(arguments, Mapping):
        raise ToolCallError(f"message {place} calls a tool with arguments that are not a JSON object")
    # Nine letters and figures, which is the only form that some templates take.
    name = call.get("id") or f"call{place:04d}{number}"
    return {
        "id": str(name),
        "type": "function",
        "function": {"name": function["name"], "arguments": dict(arguments)},
    }


def _match(answer: Message, waiting: dict[str, str], place: int) -> None:
    name = answer.setdefault("tool_call_id", next(iter(waiting), ""))
    if name not in waiting:
        raise ToolCallError(f"message {place} answers a call that was not made, or was answered before")
    called = waiting.pop(name)
    if answer.setdefault("name", called) != called:
        raise ToolCallError(f"message {place} answers for another function than the one that was called")


def _parsed(text: str, place: int) -> Any:
    if len(text) > _MOST_CHARACTERS:
        raise ToolCallError(f"message {place} calls a tool with more than {_MOST_CHARACTERS} characters")
    try:
        value = json.loads(text, parse_constant=_refused)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ToolCallError(f"message {place} calls a tool with arguments that are not JSON") from None
    return value


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
