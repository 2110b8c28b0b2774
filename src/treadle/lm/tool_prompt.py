"""Tools for a chat template that knows none: what would be lost is written into the messages themselves.

The functions go into the system message, a call into the text of the assistant's turn, and the answers of tools into a
turn of the user, in the tags that models with tools of their own have made usual (Qwen, Hermes):

    <tool_call>
    {"name": "weather", "arguments": {"city": "Bern"}}
    </tool_call>

``text.tool_calls`` reads a call back out of such an answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]

OPENS, CLOSES = "<tool_call>", "</tool_call>"
_FUNCTIONS = (
    "You may call these functions, described as JSON:\n<tools>\n{tools}\n</tools>\n\n"
    "To call one, write its name and its arguments as JSON between these tags:\n"
    '<tool_call>\n{{"name": "...", "arguments": {{}}}}\n</tool_call>'
)


def with_functions(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The conversation with the functions in its system message, behind what that says."""
    told = _FUNCTIONS.format(tools="\n".join(_json(tool) for tool in tools))
    first, rest = messages[:1], list(messages[1:])
    if first and first[0]["role"] in ("system", "developer"):
        return [{**first[0], "content": f"{first[0]['content']}\n\n{told}"}, *rest]
    return [{"role": "system", "content": told}, *first, *rest]


def with_written_calls(messages: Sequence[Message]) -> list[Message]:
    """The conversation with calls as text of the assistant's, and their answers as text of the user's."""
    written: list[Message] = []
    answers: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            answers.append(f"<tool_response>\n{message['content']}\n</tool_response>")
            continue
        if answers:
            written.append({"role": "user", "content": "\n".join(answers)})
            answers = []
        calls = message.get("tool_calls")
        written.append({"role": message["role"], "content": call_text(message["content"], calls)} if calls else message)
    if answers:
        written.append({"role": "user", "content": "\n".join(answers)})
    return written


def call_text(content: str, calls: Sequence[Mapping[str, Any]]) -> str:
    """What the assistant says, and the calls below it."""
    functions = [call["function"] for call in calls]
    texts = [
        f"{OPENS}\n{_json({'name': each['name'], 'arguments': _parsed(each['arguments'])})}\n{CLOSES}"
        for each in functions
    ]
    return "\n".join([content, *texts] if content else texts)


def _parsed(arguments: Any) -> Any:
    return json.loads(arguments) if isinstance(arguments, str) else arguments


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
