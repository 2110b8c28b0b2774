"""The layouts conversations are kept in, and turns that cannot be learned from."""

from __future__ import annotations

from typing import Any

import pytest

from treadle.text.chat import MalformedChatError, from_messages, recognize

PAIR = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": PAIR},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello?"}]}, PAIR[1]]},
        {"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hi."}]},
        {"instruction": "Hello?", "input": "", "output": "Hi."},
        {"instruction": "Hello?", "input": None, "response": "Hi."},
        {"prompt": "Hello?", "completion": "Hi."},
        {"prompt": "Hello?", "response": "Hi."},
        {"question": "Hello?", "answer": "Hi."},
    ],
)
def test_every_layout_gives_the_same_messages(row: dict[str, Any]) -> None:
    found = recognize({**row, "extra": 1})
    assert found is not None
    messages, used = found
    assert messages == PAIR
    assert used == frozenset(row)


def test_alpacas_input_stands_below_the_instruction() -> None:
    found = recognize({"instruction": "Translate.", "input": "Tee", "output": "tea"})
    assert found is not None
    assert found[0][0]["content"] == "Translate.\n\nTee"


def test_a_system_message_may_come_first() -> None:
    messages = [{"role": "developer", "content": "Be brief."}, *PAIR, *PAIR]
    assert [message["role"] for message in from_messages(messages)] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]


@pytest.mark.parametrize(
    "row", [{}, {"text": "x"}, {"prompt": "x"}, {"messages": "x"}, {"answer": ["x"], "question": "y"}]
)
def test_what_is_no_conversation_is_not_taken_for_one(row: dict[str, Any]) -> None:
    assert recognize(row) is None


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no messages"),
        (["x"], "message 1 is not a mapping"),
        ([{"role": "robot", "content": "x"}], "message 1 has no role that is known"),
        ([{"role": ["user"], "content": "x"}], "message 1 has no role that is known"),
        ([{"role": "user", "content": None}], "message 1 holds something other than text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "message 1 holds something other than text"),
        ([PAIR[0], {"role": "assistant", "content": " "}], "message 2 is empty"),
        ([PAIR[1]], "message 1 is the assistant's where the user should speak"),
        ([PAIR[0], PAIR[0], PAIR[1]], "message 2 is the user's where the assistant should speak"),
        ([*PAIR, {"role": "system", "content": "x"}], "message 3 is the system's where the user should speak"),
        ([*PAIR, PAIR[0]], "the last message is not the assistant's"),
        ([{"role": "system", "content": "x"}], "the last message is not the assistant's"),
        ([PAIR[0], {"role": "assistant", "content": None, "tool_calls": [{}]}], "message 2 is a tool call"),
        (PAIR * 6000, "more than 10000 messages"),
    ],
)
def test_malformed_turns_are_told_by_their_place(messages: list[Any], reason: str) -> None:
    with pytest.raises(MalformedChatError, match=reason):
        from_messages(messages)
