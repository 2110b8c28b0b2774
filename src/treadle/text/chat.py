"""Conversations in the layouts people keep them in, as OpenAI-style messages: ``[{"role", "content"}, ...]``.

What a conversation must be: at most one system message, first; then user and assistant by turns, starting
with the user and ending with the assistant; every message a text that is not empty. An assistant's turn may call
tools (``text.tool_calls``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from treadle.text.tool_calls import ToolCallError, answered, tool_message

Message = dict[str, Any]

_SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
             "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system"}  # fmt: skip
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_ANSWERS = ("response", "completion", "answer", "output")
_MOST_MESSAGES = 10_000
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_TRANSCRIPT = re.compile(r"\s*Human:")


class MalformedChatError(ValueError):
    """Why a conversation cannot be used, in words that do not quote it."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """The messages of a row, and which of its keys they are made of. ``rejected`` is the same conversation as somebody
    liked it less, where the row is a preference.
    """

    messages: list[Message]
    keys: frozenset[str]
    rejected: list[Message] | None = None


def recognize(row: Mapping[str, Any]) -> Conversation | None:
    """The conversation of a row; None when the row has none of the known layouts.

    OpenAI (``messages``), ShareGPT (``conversations``, with ``system`` beside), Alpaca (``instruction``, ``input``,
    ``output`` or ``response``, with ``system`` and ``history`` beside), pairs (``prompt`` or ``question`` with
    ``response``, ``completion``, ``answer`` or ``output``), and preferences (``chosen`` and ``rejected``, with or
    without ``prompt``). ``MalformedChatError`` for a bad one.
    """
    if row.get("chosen") is not None and row.get("rejected") is not None:
        found = from_preference(row.get("prompt"), row["chosen"], row["rejected"])
        return Conversation(
            found.messages, frozenset({"prompt", "messages", *found.keys}) & frozenset(row), found.rejected
        )
    for key in ("messages", "conversations", "conversation"):
        if isinstance(row.get(key), list):
            system = row.get("system") if isinstance(row.get("system"), str) else ""
            return Conversation(
                checked(_after(system, _messages(row[key]))), _used(row, key, "system" if system else key)
            )
    answer = next((key for key in _ANSWERS if isinstance(row.get(key), str)), None)
    if answer is None:
        return None
    if isinstance(row.get("instruction"), str):
        keys = _used(row, "instruction", "input", answer, "system", "history")
        messages = from_alpaca(row["instruction"], row.get("input"), row[answer], row.get("system"), row.get("history"))
        return Conversation(messages, keys)
    for prompt in ("prompt", "question"):
        if isinstance(row.get(prompt), str):
            return Conversation(from_pair(row[prompt], row[answer]), frozenset({prompt, answer}))
    return None


def _used(row: Mapping[str, Any], *names: str) -> frozenset[str]:
    return frozenset(names) & frozenset(row)


def from_messages(turns: Any) -> list[Message]:
    """OpenAI's ``role`` and ``content``, or ShareGPT's ``from`` and ``value``."""
    return checked(_messages(turns))


def _messages(turns: Any) -> list[Message]:
    if not isinstance(turns, list):
        raise MalformedChatError("messages are not a list")
    return [_message(turn, place) for place, turn in enumerate(turns, start=1)]


def _after(system: str | None, messages: list[Message]) -> list[Message]:
    """The messages, with what a column beside them says as the system's, unless they have their own."""
    if not system or not system.strip() or (messages and messages[0]["role"] == "system"):
        return messages
    return [{"role": "system", "content": system}, *messages]


def from_alpaca(instruction: Any, context: Any, answer: Any, system: Any = None, history: Any = None) -> list[Message]:
    """The instruction, with its input below it when there is one, and the answer. ``history`` are the questions and
    answers before it.
    """
    for name, value in (("input", context), ("system", system)):
        if value is not None and not isinstance(value, str):
            raise MalformedChatError(f"{name} is not a text")
    prompt = f"{instruction}\n\n{context}" if context and context.strip() else instruction
    before: list[Message] = []
    if history is not None and not isinstance(history, list):
        raise MalformedChatError("history is not a list")
    for place, turn in enumerate(history or (), start=1):
        if not isinstance(turn, list) or len(turn) != 2:
            raise MalformedChatError(f"turn {place} of the history is not a question and an answer")
        before += from_pair(*turn)
    return checked(_after(system, [*before, *from_pair(prompt, answer)]))


def from_preference(prompt: Any, chosen: Any, rejected: Any) -> Conversation:
    """Two ways a conversation went: each a text, messages or a transcript, whole or, with ``prompt``, only what comes
    after it.
    """
    before = [] if prompt is None else _turns(prompt, "user", "prompt")
    ways = []
    for name, way in (("chosen", chosen), ("rejected", rejected)):
        try:
            turns = _turns(way, "assistant", name)
            if not before and turns and turns[0]["role"] == "assistant" and isinstance(way, str):
                raise MalformedChatError("neither a transcript nor an answer to a prompt")
            ways.append(checked([*before, *turns] if turns and turns[0]["role"] == "assistant" else turns))
        except MalformedChatError as error:
            raise MalformedChatError(f"{name}: {error}") from None
    if ways[0] == ways[1]:
        raise MalformedChatError("chosen and rejected are the same")
    return Conversation(ways[0], frozenset({"chosen", "rejected"}), ways[1])


def from_transcript(text: str) -> list[Message]:
    """Turns as HH-RLHF writes them: ``\\n\\nHuman: ...\\n\\nAssistant: ...``. An answer still to come, as at the end
    of a prompt, is none.
    """
    _, *parts = _SPEAKER.split("\n\n" + text.lstrip())
    turns = zip(parts[::2], parts[1::2], strict=True)
    found = [{"role": _SPEAKERS[who], "content": said.strip()} for who, said in turns]
    if found and found[-1] == {"role": "assistant", "content": ""} and text.rstrip().endswith("Assistant:"):
        found.pop()
    return found


def _turns(value: Any, role: str, name: str) -> list[Message]:
    """Of a preference: messages, a transcript, or a text that ``role`` said."""
    if isinstance(value, str):
        return from_transcript(value) if _TRANSCRIPT.match(value) else [{"role": role, "content": value}]
    if isinstance(value, list):
        return _messages(value)
    raise MalformedChatError(f"{name} is neither a text nor messages")


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
    if len(messages) > _MOST_MESSAGES:
        raise MalformedChatError(f"more than {_MOST_MESSAGES} messages")
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
