"""Conversations in the layouts people keep them in, as OpenAI-style messages: ``[{"role", "content"}, ...]``.

What a conversation must be: at most one system message, first; then user and assistant by turns, starting
with the user and ending with the assistant; every message a text that is not empty. An assistant's turn may call
tools (``text.tool_calls``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from treadle.text.tool_calls import ToolCallError, answered, tool_message

Message = dict[str, Any]

_SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
             "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system"}  # fmt: skip
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_ANSWERS = ("response", "completion", "answer", "output")
_MOST_MESSAGES = 10_000


class MalformedChatError(ValueError):
    """Why a conversation cannot be used, in words that do not quote it."""


def recognize(row: Mapping[str, Any]) -> tuple[list[Message], frozenset[str]] | None:
    """The conversation of a row, and which of its keys it is made of; None when the row has none of the known
    layouts.

    OpenAI (``messages``), ShareGPT (``conversations``), Alpaca (``instruction``, ``input``, ``output`` or
    ``response``), and pairs (``prompt`` or ``question`` with ``response``, ``completion``, ``answer`` or
    ``output``). ``MalformedChatError`` for a bad one.
    """
    for key in ("messages", "conversations", "conversation"):
        if isinstance(row.get(key), list):
            return from_messages(row[key]), frozenset({key})
    answer = next((key for key in _ANSWERS if isinstance(row.get(key), str)), None)
    if answer is None:
        return None
    if isinstance(row.get("instruction"), str):
        keys = frozenset({"instruction", "input", answer})
        return from_alpaca(row["instruction"], row.get("input"), row[answer]), keys & frozenset(row)
    for prompt in ("prompt", "question"):
        if isinstance(row.get(prompt), str):
            return from_pair(row[prompt], row[answer]), frozenset({prompt, answer})
    return None


def from_messages(turns: Any) -> list[Message]:
    """OpenAI's ``role`` and ``content``, or ShareGPT's ``from`` and ``value``."""
    if not isinstance(turns, list):
        raise MalformedChatError("messages are not a list")
    if len(turns) > _MOST_MESSAGES:
        raise MalformedChatError(f"more than {_MOST_MESSAGES} messages")
    return checked([_message(turn, place) for place, turn in enumerate(turns, start=1)])


def from_alpaca(instruction: Any, context: Any, answer: Any) -> list[Message]:
    """The instruction, with its input below it when there is one, and the answer."""
    if context is not None and not isinstance(context, str):
        raise MalformedChatError("input is not a text")
    prompt = f"{instruction}\n\n{context}" if context and context.strip() else instruction
    return from_pair(prompt, answer)


def from_pair(prompt: Any, answer: Any) -> list[Message]:
    """One question and its answer."""
    if not isinstance(prompt, str) or not isinstance(answer, str):
        raise MalformedChatError("the prompt or the response is not a text")
    return checked([{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}])


def checked(messages: list[Message]) -> list[Message]:
    """The messages, when they are a conversation; ``MalformedChatError`` with the place of the first bad
    turn.
    """
    if not messages:
        raise MalformedChatError("no messages")
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    first = len(messages) - len(turns) + 1
    for place, message in enumerate(messages, start=1):
        if not message["content"].strip() and message["role"] != "tool" and not message.get("tool_calls"):
            raise MalformedChatError(f"message {place} is empty")
    try:
        told = answered(turns, first)
    except ToolCallError as error:
        raise MalformedChatError(str(error)) from None
    for index, (place, role) in enumerate(told):
        expected = "assistant" if index % 2 else "user"
        if role not in (expected, "tool"):
            raise MalformedChatError(f"message {place} is the {role}'s where the {expected} should speak")
    if not turns or turns[-1]["role"] != "assistant":
        raise MalformedChatError("the last message is not the assistant's")
    return messages


def _message(turn: Any, place: int) -> Message:
    if not isinstance(turn, Mapping):
        raise MalformedChatError(f"message {place} is not a mapping")
    if (tool := _tool_message(turn, place)) is not None:
        return tool
    sharegpt = "from" in turn and "role" not in turn
    role = turn.get("from" if sharegpt else "role")
    known = (_SHAREGPT if sharegpt else _ROLES).get(role) if isinstance(role, str) else None
    if known is None:
        raise MalformedChatError(f"message {place} has no role that is known")
    return {"role": known, "content": _content(turn.get("value" if sharegpt else "content"), place)}


def _tool_message(turn: Mapping[str, Any], place: int) -> Message | None:
    said = turn.get("value", turn.get("content"))
    if isinstance(said, Mapping):  # the answer of a tool
        content = json.dumps(said, ensure_ascii=False)
    else:
        content = "" if said is None else _content(said, place)
    try:
        return tool_message(turn, content, place)
    except ToolCallError as error:
        raise MalformedChatError(str(error)) from None


def _content(content: Any, place: int) -> str:
    """A text, or OpenAI's list of parts when all of them are text."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:
        texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "".join(str(text) for text in texts)
    raise MalformedChatError(f"message {place} holds something other than text")
