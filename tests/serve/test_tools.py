"""Tools over the API, asked by OpenAI's own client: functions are shown, calls come back as calls."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from toy_server import Served

from treadle.serve.tools import CallsInStream

WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = '<tool_call> {"name": "weather", "arguments": {"city": "Bern"}} </tool_call>'  # the toy says what it is told


def test_a_call_comes_back_as_a_call(served: Served) -> None:
    answer = served.client.chat.completions.create(
        model="docs-assistant", messages=[{"role": "user", "content": f"Let me see. {CALL}"}], tools=[WEATHER]
    )
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    [call] = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Bern"}
    assert served.engine.tokenizer.tools == [WEATHER]
    [row] = served.rows
    assert row["answer"] == f"Let me see. {CALL}"
    assert row["parameters"]["tools"] == ["weather"]


def test_a_stream_sends_it_whole_and_never_as_text(served: Served) -> None:
    stream = served.client.chat.completions.create(
        model="docs-assistant",
        messages=[{"role": "user", "content": f"One <b> two {CALL} {CALL}"}],
        tools=[WEATHER],
        stream=True,
    )
    choices = [chunk.choices[0] for chunk in stream if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices).strip() == "One <b> two"
    calls = [call for choice in choices for call in choice.delta.tool_calls or ()]
    assert [(call.index, call.function and call.function.name) for call in calls] == [(0, "weather"), (1, "weather")]
    assert choices[-1].finish_reason == "tool_calls"


def test_without_tools_or_without_a_call_it_is_text(served: Served) -> None:
    said = [{"role": "user", "content": CALL}]
    plain = served.http.post("/v1/chat/completions", json={"messages": said}).json()["choices"][0]
    assert (plain["message"]["content"], plain["finish_reason"]) == (CALL, "stop")
    none = {"messages": said, "tools": [WEATHER], "tool_choice": "none"}
    assert served.http.post("/v1/chat/completions", json=none).json()["choices"][0] == plain
    broken = {"messages": [{"role": "user", "content": "<tool_call> {nothing"}], "tools": [WEATHER]}
    told = served.http.post("/v1/chat/completions", json=broken).json()["choices"][0]
    assert (told["message"]["content"], told["finish_reason"]) == ("<tool_call> {nothing", "stop")


def test_the_answer_of_a_tool_goes_back_to_the_model(served: Served) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    messages = [
        {"role": "user", "content": "Is it warm?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "21 degrees"},
    ]
    response = served.http.post("/v1/chat/completions", json={"messages": messages, "tools": [WEATHER]})
    assert response.status_code == 200, response.text
    [row] = served.rows
    assert [message["role"] for message in row["messages"]] == ["user", "assistant", "user"]
    assert "21 degrees" in row["messages"][2]["content"]
    assert '"city": "Bern"' in row["messages"][1]["content"]
    messages[2]["tool_call_id"] = "c2"
    refused = served.http.post("/v1/chat/completions", json={"messages": messages, "tools": [WEATHER]})
    assert refused.status_code == 400
    assert "answers a call that was not made" in refused.json()["error"]["message"]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        (f"so {CALL}", "so ", 1),
        (f"{CALL}{CALL}", "", 2),
        ('{"name": "f", "parameters": {}}', "", 1),
        ('[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {}}]', "", 2),
        ("a < b <tool", "a < b <tool", 0),
        ('{"name": "f"}', '{"name": "f"}', 0),
        ("<tool_call> {no", "<tool_call> {no", 0),
        ("", "", 0),
    ],
)
def test_pieces_of_any_size(text: str, shown: str, calls: int, size: int) -> None:
    held = CallsInStream()
    out = "".join(held.feed(text[at : at + size]) for at in range(0, len(text), size))
    rest, found = held.end()
    assert out + rest == shown
    assert len(found) == calls


def test_a_long_answer_costs_no_more_for_each_piece() -> None:
    held = CallsInStream()
    began = time.process_time()
    out = "".join(held.feed(" word") for _ in range(150_000))
    assert out + held.end()[0] == " word" * 150_000
    assert time.process_time() - began < 3
