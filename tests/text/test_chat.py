"""The layouts conversations are kept in, and turns that cannot be learned from."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treadle.text.accounting import Accounting
from treadle.text.chat import MalformedChatError, Message, from_messages, recognize
from treadle.text.document import Document

Collect = Callable[..., tuple[list[Document], Accounting]]

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
    assert found.messages == PAIR
    assert found.keys == frozenset(row)
    assert found.rejected is None


def test_alpacas_input_stands_below_the_instruction() -> None:
    found = recognize({"instruction": "Translate.", "input": "Tee", "output": "tea"})
    assert found is not None
    assert found.messages[0]["content"] == "Translate.\n\nTee"


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
    "row",
    [
        {},
        {"text": "x"},
        {"chosen": "x"},
        {"chosen": "x", "rejected": None},
        {"prompt": "x"},
        {"messages": "x"},
        {"answer": ["x"], "question": "y"},
    ],
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


LESS = [PAIR[0], {"role": "assistant", "content": "What?"}]
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "\n\nHuman: Hello?\n\nAssistant: Hi.", "rejected": "\n\nHuman: Hello?\n\nAssistant: What?"},
        {"prompt": "\n\nHuman: Hello?\n\nAssistant:", "chosen": " Hi.", "rejected": " What?"},
        {"prompt": "Hello?", "chosen": "Hi.", "rejected": "What?"},
        {"prompt": "Hello?", "chosen": PAIR, "rejected": LESS, "messages": PAIR},
        {"prompt": PAIR[:1], "chosen": PAIR[1:], "rejected": LESS[1:]},
        {"chosen": PAIR, "rejected": LESS},
    ],
)
def test_every_layout_of_a_preference_gives_both_ways(row: dict[str, Any]) -> None:
    found = recognize({**row, "score": 1})
    assert found is not None
    stripped = [
        [{**message, "content": message["content"].strip()} for message in way]
        for way in (found.messages, found.rejected or [])
    ]
    assert stripped == [PAIR, LESS]
    assert found.keys == frozenset(row)


HUMANS = "\n\nHuman: a\n\nHuman: b\n\nAssistant: c"
ASKED, EMPTY = "\n\nHuman: a\n\nAssistant: c", "\n\nHuman: a\n\nAssistant: "


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "Hi.", "rejected": "What?"}, "chosen: neither a transcript nor an answer"),
        ({"chosen": PAIR, "rejected": 7}, "rejected: rejected is neither a text nor messages"),
        ({"chosen": PAIR, "rejected": PAIR}, "chosen and rejected are the same"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "rejected: message 2 is empty"),
        ({"prompt": {}, "chosen": "b", "rejected": "c"}, "prompt is neither"),
        ({"chosen": HUMANS, "rejected": ASKED}, "chosen: message 2 is the user"),
        ({"chosen": ASKED, "rejected": EMPTY}, "rejected: the last message"),
        ({"instruction": "a", "output": "b", "history": [["c"]]}, "turn 1 of the history"),
        ({"instruction": "a", "output": "b", "history": 3}, "history is not a list"),
        ({"instruction": "a", "output": "b", "system": 3}, "system is not a text"),
    ],
)  # fmt: skip
def test_malformed_preferences_and_histories(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(MalformedChatError, match=reason):
        recognize(row)


def test_what_stands_beside_a_conversation() -> None:
    found = recognize({"conversations": PAIR, "system": "Be brief.", "id": 1})
    assert found is not None
    assert (found.messages, found.keys) == ([SYSTEM, *PAIR], frozenset({"conversations", "system"}))
    assert recognize({"conversations": [SYSTEM, *PAIR], "system": "Be long."}).messages == [SYSTEM, *PAIR]  # type: ignore[union-attr]
    row = {"instruction": "And?", "input": "", "output": "No.", "system": "Be brief.", "history": [["Hello?", "Hi."]]}
    found = recognize(row)
    assert found is not None
    last = [{"role": "user", "content": "And?"}, {"role": "assistant", "content": "No."}]
    assert (found.messages, found.keys) == ([SYSTEM, *PAIR, *last], frozenset(row))


def write_sharegpt(messages: list[Message], rejected: list[Message] | None) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return {"conversations": [{"from": names[turn["role"]], "value": turn["content"]} for turn in messages]}


def write_transcript(messages: list[Message], rejected: list[Message] | None) -> dict[str, Any]:
    names = {"user": "Human", "assistant": "Assistant"}
    ways = {"chosen": messages, "rejected": rejected or []}
    return {key: "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in way) for key, way in ways.items()}


def write_openai(messages: list[Message], rejected: list[Message] | None) -> dict[str, Any]:
    return {"messages": messages} if rejected is None else {"chosen": messages, "rejected": rejected}


def write_alpaca(messages: list[Message], rejected: list[Message] | None) -> dict[str, Any]:
    said = [turn["content"] for turn in messages]
    *before, (asked, answered) = zip(said[::2], said[1::2], strict=True)
    return {"instruction": asked, "input": "", "output": answered, "history": [list(turn) for turn in before]}


@pytest.mark.parametrize("write", [write_openai, write_sharegpt, write_transcript, write_alpaca])
def test_real_preferences_round_trip_through_every_layout(
    shared_data: Path, tmp_path: Path, collect: Collect, write: Callable[..., dict[str, Any]]
) -> None:
    """What HH-RLHF holds, written in a layout and read again, is what it was; what is malformed has its reason."""
    path = shared_data / "7-load-drift-feedback" / "hh_rlhf_harmless.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [next(lines) for _ in range(600)]
    (tmp_path / "hh.jsonl").write_text("".join(rows), encoding="utf-8")
    documents, accounting = collect(path="hh.jsonl")
    assert len(documents) > 550
    assert accounting.read == 600
    assert {piece.reason.partition(": ")[0].rstrip("0123456789") for piece in accounting.quarantined} <= {"line "}
    with (tmp_path / "again.jsonl").open("w", encoding="utf-8") as out:
        for document in documents:
            out.write(json.dumps(write(document.fields["messages"], document.fields["rejected"])) + "\n")
    again, counted = collect(path="again.jsonl")
    assert counted.quarantined == []
    assert [each.fields["messages"] for each in again] == [each.fields["messages"] for each in documents]
    if write in (write_openai, write_transcript):
        assert [each.fields["rejected"] for each in again] == [each.fields["rejected"] for each in documents]
    assert [each.text for each in again] == [each.text for each in documents]


def test_columns_of_a_preference_may_have_other_names(tmp_path: Path, collect: Collect) -> None:
    row = {"q": "Hello?", "good": "Hi.", "bad": "What?", "who": "x"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "bad": ""}) + "\n")
    (document,), accounting = collect(path="p.jsonl", fields={"prompt": "q", "chosen": "good", "rejected": "bad"})
    assert document.fields == {"who": "x", "messages": PAIR, "rejected": LESS}
    assert document.text == "Hello?\n\nHi."
    assert accounting.quarantined[0].reason == "line 2: rejected: message 2 is empty"


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
