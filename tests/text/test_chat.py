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
        (
            [PAIR[0], {"role": "assistant", "content": None, "tool_calls": [{}]}],
            "message 2 calls a tool without a name",
        ),
        (PAIR * 6000, "more than 10000 messages"),
    ],
)
def test_malformed_turns_are_told_by_their_place(messages: list[Any], reason: str) -> None:
    with pytest.raises(MalformedChatError, match=reason):
        from_messages(messages)


def calls(*arguments: Any, role: str = "assistant") -> dict[str, Any]:
    made = [{"id": f"c{n}", "function": {"name": "f", "arguments": each}} for n, each in enumerate(arguments)]
    return {"role": role, "content": None, "tool_calls": made}


ANSWER = {"role": "tool", "tool_call_id": "c0", "content": "42"}


def test_calls_of_tools_are_read_and_kept_in_one_form() -> None:
    ours = [PAIR[0], calls('{"x": 1}', {"x": "2"}), {**ANSWER, "tool_call_id": "c1"}, ANSWER, PAIR[1], *PAIR]
    read = from_messages(ours)
    assert [message["role"] for message in read] == [
        "user", "assistant", "tool", "tool", "assistant", "user", "assistant",
    ]  # fmt: skip
    assert [call["function"]["arguments"] for call in read[1]["tool_calls"]] == [{"x": 1}, {"x": "2"}]
    assert read[2] == {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "f"}
    assert from_messages(read) == read  # what was read once reads the same
    assert from_messages([PAIR[0], calls("{}")])[1]["content"] == ""  # a conversation may end with a call


@pytest.mark.parametrize(
    "turns",
    [
        [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}},
            {"role": "function", "name": "f", "content": "42"},
            {"role": "assistant", "content": "a"},
        ],
        [
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "42"},
            {"from": "gpt", "value": "a"},
        ],
    ],
)
def test_older_ways_to_call_are_read(turns: list[Any]) -> None:
    call = {"id": "call00020", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    assert from_messages(turns) == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "42", "name": "f", "tool_call_id": "call00020"},
        {"role": "assistant", "content": "a"},
    ]


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([calls("{x: 1}")], "message 2 calls a tool with arguments that are not JSON"),
        ([calls("[1]")], "message 2 calls a tool with arguments that are not a JSON object"),
        ([calls('{"x": NaN}')], "message 2 calls a tool with arguments that are not JSON"),
        ([calls("[" * 100_000)], "message 2 calls a tool with arguments that are not JSON"),
        ([calls('{"x": "\\ud800"}')], "message 2 calls a tool with arguments that are not JSON"),
        ([calls(*["{}"] * 129)], "message 2 does not hold a list of at most 128 calls"),
        ([calls("{}", role="user")], "message 2 calls a tool and is not the assistant's"),
        ([calls("{}"), *PAIR], "message 2 has 1 calls that no message answers"),
        ([calls("{}"), ANSWER], "the last message is not the assistant's"),
        ([calls("{}"), ANSWER, PAIR[0], PAIR[1]], "message 4 is the user's where"),
        ([calls("{}"), ANSWER, ANSWER, PAIR[1]], "message 4 answers a call that was not made"),
        ([calls("{}"), {**ANSWER, "tool_call_id": "zz"}, PAIR[1]], "message 3 answers a call that was not made"),
        ([calls("{}"), {**ANSWER, "name": "g"}, PAIR[1]], "message 3 answers for another function"),
        ([PAIR[1], ANSWER, PAIR[1]], "message 3 is a tool's, and no call waits for it"),
    ],
)
def test_malformed_calls_are_told_by_their_place(turns: list[Any], reason: str) -> None:
    with pytest.raises(MalformedChatError, match=reason):
        from_messages([PAIR[0], *turns])
