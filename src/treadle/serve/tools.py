"""Tools in a conversation: what a client may send, and the calls in what the model answers."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from treadle.serve.errors import invalid
from treadle.serve.requests import ChatMessage, ChatRequest
from treadle.text.tool_calls import ToolCallError, answered, read_calls, tool_message

# What may go out of the calls that a model wrote, none of them where one may not.
CheckCalls = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
_OPENS = "<tool_call>"
_MOST_CHARACTERS = 200_000


def asked_tools(body: ChatRequest) -> list[dict[str, Any]]:
    """The functions that the model is shown, as its template takes them. Raises 400."""
    if not body.tools or body.tool_choice == "none":
        return []
    tools = [
        {"type": "function", "function": {key: value for key, value in function.items() if value is not None}}
        for function in (msgspec.structs.asdict(tool.function) for tool in body.tools)
    ]
    try:
        size = len(json.dumps(tools))
    except (ValueError, RecursionError):
        raise invalid("tools", "tools: cannot be written as JSON") from None
    if size > _MOST_CHARACTERS:
        raise invalid("tools", f"tools: {size:,} characters; at most {_MOST_CHARACTERS:,}")
    return tools


def as_said(message: ChatMessage, content: str, place: int) -> dict[str, Any]:
    """A message that calls tools or answers a call, as templates take it; any other as it is. Raises 400."""
    where = f"messages[{place}]"
    given = {"role": message.role, "tool_calls": message.tool_calls, "tool_call_id": message.tool_call_id}
    if message.tool_call_id is not None and message.role != "tool":
        raise invalid(f"{where}.tool_call_id", f"{where}.tool_call_id: only goes with the role tool")
    try:
        made = tool_message(given, content, place + 1)
    except ToolCallError as error:
        raise invalid(f"{where}.tool_calls", f"{where}: {error}") from None
    return made or {"role": "system" if message.role == "developer" else message.role, "content": content}


def check_answers(messages: Sequence[dict[str, Any]]) -> None:
    """Raises 400 for an answer of a tool that nobody called, and a call that nobody answered."""
    if not any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
        return
    try:
        answered(messages, 1)
    except ToolCallError as error:
        raise invalid("messages", f"messages: {error}") from None
    if messages[-1].get("tool_calls"):
        raise invalid("messages", f"messages[{len(messages) - 1}]: calls a tool, and no message answers it")


def with_calls(choice: dict[str, Any], text: str, checked: CheckCalls) -> dict[str, Any]:
    """A choice of a whole answer, with the calls in its text as OpenAI has them, and as ``checked`` leaves them;
    without them where it leaves none."""
    said, calls = read_calls(text)
    if not calls:
        return choice
    calls = checked(calls)
    if not calls:
        message = {**choice["message"], "content": said or ""}
        return {**choice, "message": message, "finish_reason": "content_filter"}
    message = {**choice["message"], "content": said or None, "tool_calls": [_sent(call) for call in calls]}
    return {**choice, "message": message, "finish_reason": "tool_calls"}


class CallsInStream:
    """Text of one choice as it comes: what may go out, and the calls at its end, which are sent whole."""

    def __init__(self, checked: CheckCalls | None = None) -> None:
        self._checked = checked or (lambda calls: calls)
        self._pieces: list[str] = []
        self._open = ""  # the end of the text that may be the beginning of a call
        self._begun = False  # anything but spaces came
        self._call = False  # what comes from here on is one, or looks like one
        self._sent = 0
        self.stopped = False  # calls were left out

    def feed(self, text: str) -> str:
        """What of the text so far can be no call."""
        self._pieces.append(text)
        if self._call:
            return ""
        self._open += text
        if not self._begun:
            first = self._open.lstrip()[:1]
            self._begun = bool(first)
            self._call = first in ("{", "[")
            if not self._begun or self._call:
                return ""
        end = self._open.find(_OPENS)
        self._call = end >= 0
        if not self._call:
            begun = next((size for size in range(len(_OPENS) - 1, 0, -1) if self._open.endswith(_OPENS[:size])), 0)
            end = len(self._open) - begun
        out, self._open = self._open[:end], self._open[end:]
        self._sent += len(out)
        return out

    @property
    def opened(self) -> bool:
        """A call was begun, in the tags that mean nothing else."""
        return self._call and self._open.startswith(_OPENS)

    def end(self) -> tuple[str, list[dict[str, Any]]]:
        """The text that was held back for nothing, and the calls, numbered as events number them."""
        text = "".join(self._pieces)
        _, calls = read_calls(text)
        if not calls:
            return text[self._sent :], []
        calls = self._checked(calls)
        self.stopped = not calls
        return "", [{"index": number, **_sent(call)} for number, call in enumerate(calls)]


def _sent(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    written = {"name": function["name"], "arguments": json.dumps(function["arguments"], ensure_ascii=False)}
    # Nine letters and figures, which is the only form that some templates take back.
    return {"id": secrets.token_hex(5)[:9], "type": "function", "function": written}
