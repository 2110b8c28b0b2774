"""Tools over the API, asked by OpenAI's own client: functions are shown, calls come back as calls."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest
from toy_server import Served

from treadle.core.errors import UserError
from treadle.lm.engine import Chunk, GenerateRequest
from treadle.serve.strict_calls import strict_calls
from treadle.serve.tools import CallsInStream

WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CITY = {"type": "object", "properties": {"city": {"$ref": "#/$defs/City"}}, "required": ["city"]}
NAMES = {"City": {"enum": ["Bern", "Oslo"]}}
MOVE: Any = {"type": "function", "function": {"name": "move", "strict": True, "parameters": {**CITY, "$defs": NAMES}}}
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


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "move"}}])
def test_a_call_that_is_asked_for_comes_parsed_by_openais_own_client(served: Served, choice: Any) -> None:
    served.engine.holds_schema = True  # type: ignore[attr-defined]
    asked: dict[str, Any] = {"model": "docs-assistant", "tools": [MOVE], "tool_choice": choice}
    asked["messages"] = [{"role": "user", "content": json.dumps({"name": "move", "arguments": {"city": "Bern"}})}]
    with served.client.chat.completions.stream(**asked) as events:
        streamed = events.get_final_completion()
    for answer in (served.client.chat.completions.parse(**asked), streamed):
        [said] = answer.choices
        [made] = said.message.tool_calls or []
        assert (made.function.name, made.function.parsed_arguments) == ("move", {"city": "Bern"})
        assert said.finish_reason == "tool_calls"
        assert not said.message.content  # of a stream, a text without a letter


HELD = json.dumps({"name": "move", "arguments": {"city": "Oslo"}})
LOOSE = json.dumps({"name": "move", "arguments": {"town": 1}})


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("written", [f"Let me see. <tool_call> {LOOSE} </tool_call> and more", LOOSE])
def test_a_strict_call_that_the_model_makes_by_itself_is_held_to_its_schema(
    served: Served, written: str, streamed: bool
) -> None:
    served.engine.holds_schema = True  # type: ignore[attr-defined]
    served.engine.held = HELD
    asked: dict[str, Any] = {"model": "docs-assistant", "tools": [MOVE], "seed": 5}
    asked["messages"] = [{"role": "user", "content": written}]
    if streamed:
        with served.client.chat.completions.stream(**asked) as events:
            [said] = events.get_final_completion().choices
    else:
        [said] = served.client.chat.completions.parse(**asked).choices
    [made] = said.message.tool_calls or []
    assert (made.function.name, made.function.parsed_arguments) == ("move", {"city": "Oslo"})
    assert said.finish_reason == "tool_calls"
    opening = written.partition("<tool_call>")[0].strip() if "<tool_call>" in written else ""
    assert (said.message.content or "").strip() == opening
    free, held = served.engine.requests
    assert free.schema is None
    assert held.schema is not None
    assert (held.prompt_ids, held.seed, held.tools) == (free.prompt_ids, 5, ())
    assert jsonschema.Draft202012Validator(json.loads(held.schema)).is_valid(json.loads(HELD))
    assert not jsonschema.Draft202012Validator(json.loads(held.schema)).is_valid(json.loads(LOOSE))
    assert served.engine.cancelled == ([free.id] if opening else [])  # what it would have written is not waited for
    [row] = served.rows
    assert HELD in row["answer"]
    assert LOOSE not in row["answer"]
    words = len(opening.split()) + 1 if opening else len(LOOSE.split())
    assert row["tokens"]["completion"] == words + len(HELD.split())


def test_with_strict_functions_a_text_stays_a_text_and_a_call_has_to_fit(served: Served) -> None:
    served.engine.holds_schema = True  # type: ignore[attr-defined]
    served.engine.held = HELD
    told = served.chat("one < two three", tools=[MOVE]).json()["choices"][0]
    assert (told["message"]["content"], told["finish_reason"]) == ("one < two three", "stop")
    assert len(served.engine.requests) == 1
    for room in (3, 4):  # what opens the call comes to three words
        cut = served.chat(f"so so <tool_call> {LOOSE}", tools=[MOVE], max_tokens=room).json()["choices"][0]
        assert cut["finish_reason"] == "length"
        assert "tool_calls" not in cut["message"]
        assert LOOSE not in cut["message"]["content"]
    both = served.chat(f"a <tool_call> {LOOSE}", tools=[MOVE], n=2).json()["choices"]
    assert [json.loads(each["message"]["tool_calls"][0]["function"]["arguments"]) for each in both] == [
        {"city": "Oslo"}
    ] * 2
    served.engine.requests.clear()
    served.chat(CALL, tools=[WEATHER, {**MOVE, "function": {**MOVE["function"], "strict": False}}])
    assert [each.schema for each in served.engine.requests] == [None]  # nothing is asked twice that needs not be


def test_what_is_begun_anew_is_no_call_yet() -> None:
    async def generate(request: GenerateRequest) -> AsyncIterator[Chunk]:
        if request.schema is None:
            yield Chunk("so <tool", 1)
            yield Chunk("", restarted=True)
            yield Chunk("_call> is no call", 2)
            yield Chunk(" <tool_call>", 1)
        else:
            yield Chunk("half", 1)
            yield Chunk("", restarted=True)
            yield Chunk(HELD, 3, "stop")

    async def said() -> list[Chunk]:
        request = GenerateRequest(id="a", prompt_ids=(1,), max_tokens=9)
        return [chunk async for chunk in strict_calls(generate, [MOVE], "{}")(request)]

    found = asyncio.run(said())
    begun = [chunk.restarted for chunk in found].index(True)
    assert "".join(chunk.text for chunk in found[begun:]) == f"_call> is no call <tool_call>\n{HELD}\n</tool_call>"
    assert [chunk.finish_reason for chunk in found[:-1]] == [None] * (len(found) - 1)
    assert (found[-1].tokens, found[-1].finish_reason) == (3, "stop")


def test_the_schema_of_a_call(served: Served) -> None:
    served.engine.holds_schema = True  # type: ignore[attr-defined]
    itself: Any = {"type": "function", "function": {"name": "tree", "parameters": {"properties": {
        "left": {"$ref": "#"}, "enum": {"$ref": "#/properties/left"}, "is": {"enum": [{"$ref": "#"}]}}}}}  # fmt: skip

    def held(choice: Any) -> Any:
        answer = served.chat(CALL, tools=[WEATHER, MOVE, itself], tool_choice=choice)
        assert answer.status_code == 200, answer.text
        [request] = served.engine.requests[-1:]
        assert request.schema is not None
        assert not request.tools
        assert request.said is not None
        assert '"name": "move"' in request.said[0]["content"]  # type: ignore[index]
        assert served.engine.tokenizer.tools == [WEATHER, MOVE, itself]
        assert served.rows[-1]["parameters"]["tools"] == ["weather", "move", "tree"]
        jsonschema.Draft202012Validator.check_schema(schema := json.loads(request.schema))
        return jsonschema.Draft202012Validator(schema)

    def fits(validator: Any, name: str, arguments: Any, **more: Any) -> bool:
        return bool(validator.is_valid({"name": name, "arguments": arguments, **more}))

    one, any_of = held({"type": "function", "function": {"name": "move"}}), held("required")
    for each in (one, any_of):
        assert fits(each, "move", {"city": "Oslo"})
        for wrong in ({"city": "Rome"}, {}, [], "Oslo"):
            assert not fits(each, "move", wrong)
        assert not fits(each, "move", {"city": "Oslo"}, why="because")
        assert not fits(each, "stay", {"city": "Oslo"})
    assert fits(any_of, "weather", {"city": "Rome"})
    assert not fits(any_of, "weather", [])
    assert not fits(one, "weather", {})
    assert fits(any_of, "tree", {"left": {"left": {}}, "enum": {"left": {}}, "is": {"$ref": "#"}})
    for wrong in ({"left": 1}, {"left": {"left": 1}}, {"enum": 1}, {"enum": {"enum": []}}, {"is": {}}):
        assert not fits(any_of, "tree", wrong)


def test_what_no_call_can_be_held_to_is_named(served: Served) -> None:
    served.engine.holds_schema = True  # type: ignore[attr-defined]
    for change, param, told in (
        ({"tool_choice": "required"}, "tool_choice", "only goes with tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "fly"}}}, "tool_choice", "only goes with tools"),
        ({"tools": [WEATHER], "tool_choice": "needed"}, "tool_choice", "needed"),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type", "allowed_tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "fly"}}},
         "tool_choice.function.name", "one of tools"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}],
          "tool_choice": "required"}, "tools[0].function.parameters.type", "expected object"),
        ({"tools": [WEATHER], "tool_choice": "required", "response_format": {"type": "json_object"}},
         "response_format", "may call tools"),
    ):  # fmt: skip
        error = served.chat("x", **change)  # type: ignore[arg-type]
        assert error.status_code == 400, error.text
        assert error.json()["error"]["param"] == param
        assert told in error.json()["error"]["message"]
    assert served.rows == []
    served.engine.failing = UserError("response_format: this schema cannot be kept to (#/x)")
    error = served.chat("x", tools=[WEATHER], tool_choice="required")
    assert error.json()["error"]["message"] == "tools: this schema cannot be kept to (#/x)"


def test_a_call_is_as_the_description_says(served: Served) -> None:
    described = served.http.get("/openapi.json").json()
    answer = served.chat(CALL, tools=[WEATHER]).json()
    assert answer["choices"][0]["message"]["tool_calls"]
    shown = {"$ref": "#/components/schemas/ChatCompletion", "components": described["components"]}
    jsonschema.Draft202012Validator(shown).validate(answer)


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
