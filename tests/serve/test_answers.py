"""Chat and text completions, asked by OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pydantic
import pytest
from toy_server import DIGEST, Served

from treadle.record.interaction import is_interaction_id


def test_a_plain_answer_names_its_interaction_and_its_release(served: Served) -> None:
    answer = served.client.chat.completions.create(
        model="docs-assistant", messages=[{"role": "user", "content": "What does json.dumps do?"}]
    )
    assert answer.choices[0].message.content == "What does json.dumps do?"
    assert answer.choices[0].finish_reason == "stop"
    assert is_interaction_id(answer.id)
    assert answer.system_fingerprint == DIGEST
    assert answer.model == "docs-assistant@v1"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (6, 4, 10)
    [row] = served.rows
    assert row["id"] == answer.id
    assert row["status"] == "ok"
    assert row["release"] == DIGEST
    assert row["answer"] == "What does json.dumps do?"
    assert row["tokens"] == {"prompt": 6, "completion": 4, "cached": None}
    assert 0 <= row["seconds"]["queue"] <= row["seconds"]["ttft"] <= row["seconds"]["total"]


def test_a_stream_says_the_same_piece_by_piece(served: Served) -> None:
    chunks = list(
        served.client.chat.completions.create(
            model="docs-assistant@v1",
            messages=[{"role": "user", "content": "eins zwei \u00e4\u00f6\u00fc \U0001f600"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "eins zwei \u00e4\u00f6\u00fc \U0001f600"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    assert all(c.usage is None for c in chunks[:-1])
    assert {c.id for c in chunks} == {served.rows[0]["id"]}
    assert {c.system_fingerprint for c in chunks} == {DIGEST}
    assert served.rows[0]["stream"] is True
    assert served.rows[0]["answer"] == text


def test_a_stream_without_usage_has_no_such_field(served: Served) -> None:
    response = served.chat(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "usage" not in response.text
    assert response.text.endswith("data: [DONE]\n\n")


def test_text_that_looks_like_json_or_events_survives_a_stream(served: Served) -> None:
    said = 'a"b\\u0000 data: [DONE] \x7f {"x":1}'
    chunks = served.client.chat.completions.create(
        model="docs-assistant", messages=[{"role": "user", "content": said}], stream=True
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == " ".join(said.split())


def test_stop_length_and_seed(served: Served) -> None:
    create = served.client.chat.completions.create
    messages = [{"role": "user", "content": "a b c d e"}]
    cut = create(model="docs-assistant", messages=messages, max_tokens=2)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("a b", "length")
    stopped = create(model="docs-assistant", messages=messages, stop=["d"])
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("a b c ", "stop")
    seeded = create(model="docs-assistant", messages=messages, seed=2, temperature=0.5, max_completion_tokens=3)
    assert seeded.choices[0].message.content == "c d e"
    assert served.rows[-1]["parameters"] == {"max_tokens": 3, "temperature": 0.5, "top_p": 1.0, "n": 1, "seed": 2}
    assert served.rows[1]["parameters"]["stop"] == ["d"]


def test_several_choices_are_one_interaction(served: Served) -> None:
    answer = served.client.chat.completions.create(
        model="docs-assistant", messages=[{"role": "user", "content": "a b c"}], n=3, seed=0, temperature=1
    )
    assert [c.message.content for c in answer.choices] == ["a b c", "b c a", "c a b"]
    [row] = served.rows
    assert (row["answer"], row["alternatives"]) == ("a b c", ["b c a", "c a b"])
    assert row["tokens"]["completion"] == 9


def test_several_choices_in_a_stream(served: Served) -> None:
    texts = ["", "", ""]
    ends = []
    for chunk in served.client.chat.completions.create(
        model="docs-assistant",
        messages=[{"role": "user", "content": "a b c"}],
        n=3,
        seed=0,
        temperature=1,
        stream=True,
    ):
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        ends += [choice.index] if choice.finish_reason else []
    assert texts == ["a b c", "b c a", "c a b"]
    assert sorted(ends) == [0, 1, 2]


def test_logprobs(served: Served) -> None:
    answer = served.client.chat.completions.create(
        model="docs-assistant", messages=[{"role": "user", "content": "a b"}], logprobs=True
    )
    assert answer.choices[0].logprobs is not None
    assert [(e.token, e.logprob) for e in answer.choices[0].logprobs.content or ()] == [("a", -0.5), (" b", -0.5)]
    streamed = served.client.chat.completions.create(
        model="docs-assistant", messages=[{"role": "user", "content": "a b"}], logprobs=True, stream=True
    )
    seen = [e.token for c in streamed if c.choices[0].logprobs for e in c.choices[0].logprobs.content or ()]
    assert seen == ["a", " b"]


def test_text_completions(served: Served) -> None:
    answer = served.client.completions.create(model="docs-assistant", prompt="once upon a time", logprobs=0)
    assert answer.choices[0].text == "once upon a time"
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.text_offset == [0, 4, 9, 11]
    streamed = served.client.completions.create(model="docs-assistant", prompt="once upon", stream=True)
    assert "".join(c.choices[0].text for c in streamed) == "once upon"
    assert [r["endpoint"] for r in served.rows] == ["completions", "completions"]


def test_the_release_has_the_first_word_unless_the_client_does(start: Callable[..., Served]) -> None:
    served = start(release={"system_prompt": "Be brief."})
    served.chat("hello")
    served.chat(messages=[{"role": "system", "content": "Be long."}, {"role": "user", "content": "hello"}])
    served.chat(messages=[{"role": "developer", "content": "Be odd."}, {"role": "user", "content": "hello"}])
    prompts = [served.gateway.serving.tokenizer.decode(r.prompt_ids) for r in served.engine.requests]  # type: ignore[union-attr]
    assert prompts == [f" <system> {said} <user> hello <assistant>" for said in ("Be brief.", "Be long.", "Be odd.")]
    assert served.rows[0]["messages"] == [{"role": "user", "content": "hello"}]


def test_context_stands_before_the_last_question_and_is_recorded_exactly(served: Served) -> None:
    context = [
        {"id": "doc:1", "title": "json.dumps", "text": "Serialize obj. Ask bob@example.com"},
        {"text": "Second."},
    ]
    response = served.chat("Why?", context=context)
    assert response.status_code == 200, response.text
    prompt = served.gateway.serving.tokenizer.decode(served.engine.requests[0].prompt_ids)  # type: ignore[union-attr]
    assert prompt == (
        " <user> Documents:\n\n[1] json.dumps\nSerialize obj. Ask bob@example.com\n\n[2] Second.\n\nWhy? <assistant>"
    )
    [row] = served.rows
    assert row["messages"] == [{"role": "user", "content": "Why?"}]
    keyed = served.recorder.keyed_text
    assert row["given"] == [
        {
            "document": "doc:1",
            "digest": keyed(context[0]["text"]),
            "title": "json.dumps",
            "text": "Serialize obj. Ask [email]",
        },
        {"document": None, "digest": keyed("Second."), "title": None, "text": "Second."},
    ]


def test_parts_of_text_are_joined(served: Served) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert served.chat(messages=[{"role": "user", "content": parts}]).json()["choices"][0]["message"]["content"] == (
        "one two"
    )


def test_an_assistants_own_message_can_be_sent_back(served: Served) -> None:
    first = served.client.chat.completions.create(
        model="docs-assistant", messages=[{"role": "user", "content": "hello"}]
    )
    again = served.client.chat.completions.create(
        model="docs-assistant",
        messages=[
            {"role": "user", "content": "hello"},
            first.choices[0].message.model_dump(),  # type: ignore[list-item]
            {"role": "user", "content": "more"},
        ],
    )
    assert again.choices[0].message.content == "more"


@pytest.mark.parametrize("name", ["docs-assistant", "docs-assistant@v1", "docs-assistant@champion", DIGEST, None])
def test_names_a_model_answers_to(served: Served, name: str | None) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}]} | ({"model": name} if name else {})
    response = served.http.post("/v1/chat/completions", json=body)
    assert response.json()["model"] == "docs-assistant@v1"


def test_models(served: Served) -> None:
    [model] = served.client.models.list().data
    assert model.id == "docs-assistant@v1"
    assert served.client.models.retrieve("docs-assistant@champion").id == "docs-assistant@v1"
    with pytest.raises(openai.NotFoundError, match="docs-assistant@v1"):
        served.client.models.retrieve("gpt-9")


def test_classify(start: Callable[..., Served]) -> None:
    served = start(release={"name": "reviews@v2", "task": "classify", "asking": "classify"})
    answer = served.http.post("/v1/classify", json={"input": ["a good one", "a bad one"], "user": "bob"}).json()
    assert [d["label"] for d in answer["data"]] == ["good", "bad"]
    assert answer["data"][0]["probabilities"] == {"bad": 0.25, "good": 0.75}
    [row] = served.rows
    assert (row["answer"], row["alternatives"], row["confidence"]) == ("good", ["bad"], [0.75, 0.9])
    assert row["id"] == answer["id"]
    assert row["user"] == served.recorder.keyed("bob")
    wrong = served.chat(model="reviews")
    assert wrong.status_code == 400
    assert "/v1/classify" in wrong.json()["error"]["message"]


def test_tag(start: Callable[..., Served]) -> None:
    served = start(release={"name": "names@v2", "task": "tag", "asking": "tag"})
    answer = served.http.post("/v1/tag", json={"input": ["😀 Ann met Bob", "nobody"]}).json()
    assert answer["data"] == [
        {
            "index": 0,
            "spans": [
                {"start": 2, "end": 5, "type": "NAME", "text": "Ann", "score": 0.75},
                {"start": 10, "end": 13, "type": "NAME", "text": "Bob", "score": 0.75},
            ],
        },
        {"index": 1, "spans": []},
    ]
    [row] = served.rows
    assert (row["answer"], row["alternatives"]) == ('[[2,5,"NAME"],[10,13,"NAME"]]', ["[]"])
    assert row["id"] == answer["id"]
    for path, body in (
        ("/v1/classify", {"input": "x"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ):
        assert served.http.post(path, json=body).json()["error"]["code"] == "wrong_endpoint"
    assert "/v1/tag" in served.chat(model="names").json()["error"]["message"]
    chat = start()
    assert chat.http.post("/v1/tag", json={"input": "x"}).json()["error"]["code"] == "wrong_endpoint"


def test_an_answer_from_a_text(start: Callable[..., Served]) -> None:
    served = start(release={"name": "reader@v2", "task": "qa", "asking": "extract"})
    told = [{"role": "system", "content": "Ann met Bob."}, {"role": "user", "content": "Did Bob meet her?"}]
    reply = served.client.chat.completions.create(model="reader", messages=told, temperature=0, max_tokens=64)  # type: ignore[call-overload]
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("Bob", "stop")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 1)
    streamed = served.client.chat.completions.create(model="reader", messages=told, stream=True)  # type: ignore[call-overload]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == "Bob"
    asked = {"messages": [{"role": "user", "content": "Did Eve meet Ann?"}]}
    given = served.http.post("/v1/chat/completions", json=asked | {"context": [{"text": "It was Ann.", "id": "d1"}]})
    assert given.json()["choices"][0]["message"]["content"] == "Ann"
    silent = served.chat(model="reader", messages=[told[0], {"role": "user", "content": "xyz"}]).json()
    assert (silent["choices"][0]["message"]["content"], silent["usage"]["completion_tokens"]) == ("", 0)
    assert [row["answer"] for row in served.rows] == ["Bob", "Bob", "Ann", ""]
    assert served.rows[2]["given"][0]["document"] == "d1"


def test_an_answer_without_a_text_is_refused_in_one_line(start: Callable[..., Served]) -> None:
    served = start(release={"name": "reader@v2", "task": "qa", "asking": "extract"})
    refused = served.chat("Where?", model="reader")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_context")
    assert "send it as the system message, or in context" in refused.json()["error"]["message"]
    told = [{"role": "system", "content": "Ann."}, {"role": "user", "content": "Who?"}]
    for more in ({"n": 2}, {"logprobs": True}, {"stop": "x"}, {"messages": told[:1]}):
        assert served.http.post("/v1/chat/completions", json={"messages": told} | more).status_code == 400
    continued = served.http.post("/v1/completions", json={"prompt": "x"})
    assert "/v1/chat/completions" in continued.json()["error"]["message"]
    assert served.rows == []
    fixed = start(release={"name": "r@v1", "task": "qa", "asking": "extract", "system_prompt": "Call Eve at ten."})
    assert fixed.chat("When does Eve come?", model="r").json()["choices"][0]["message"]["content"] == "Eve"


def test_embeddings_in_both_encodings(start: Callable[..., Served]) -> None:
    served = start(release={"name": "vectors@v1", "task": "embed", "asking": "embed"})
    packed = served.client.embeddings.create(model="vectors", input=["abc", "aaaa"])  # base64 by itself
    plain = served.client.embeddings.create(model="vectors", input=["abc", "aaaa"], encoding_format="float")
    expected = [[3.0, 0.5, 1.0], [4.0, 2.0, 1.0]]
    assert [d.embedding for d in packed.data] == [d.embedding for d in plain.data] == expected
    assert served.rows[0]["messages"] == [{"role": "user", "content": "abc"}, {"role": "user", "content": "aaaa"}]


def test_structured_output_by_openais_own_client(served: Served) -> None:
    class Graded(pydantic.BaseModel):
        grade: str

    served.engine.holds_schema = True  # type: ignore[attr-defined]
    asked: list[Any] = [{"role": "user", "content": '{"grade": "good"}'}]
    held = served.client.chat.completions.parse(model="docs-assistant", messages=asked, response_format=Graded)
    assert held.choices[0].message.parsed == Graded(grade="good")
    schema = served.engine.requests[-1].schema
    assert schema is not None
    assert json.loads(schema)["properties"]["grade"]["type"] == "string"
    assert served.rows[-1]["parameters"]["schema"] == served.recorder.keyed_text(schema)
    served.client.chat.completions.create(
        model="docs-assistant", messages=asked, response_format={"type": "json_object"}
    )
    assert served.engine.requests[-1].schema == '{"type":"object"}'
    tool = {"type": "function", "function": {"name": "f"}}
    for wrong, said in (
        ({"response_format": {"type": "json_object"}, "tools": [tool]}, "may call tools"),
        ({"response_format": {"type": "json_schema"}}, "is required"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 3}}}, "schema"),
    ):
        refused = served.chat(**wrong)
        assert refused.status_code == 400
        assert said in refused.text
