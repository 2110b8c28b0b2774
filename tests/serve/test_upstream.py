"""A release that other servers run: what is asked of them, what comes back, and what is recorded of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import openai
import pytest
from toy_keys import Book, ask
from toy_server import DIGEST as THEIRS
from toy_server import Served, serve_toy
from toy_upstream import DIGEST, Misbehaving, fronting, piece, reply, stream, write_folder

from treadle.core.errors import UserError
from treadle.record.api_key import Limit

KEY = "up-" + "k3y" * 8
Start = Callable[..., Served]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model")


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_an_answer_whole_and_in_a_stream_is_ours_and_says_who_gave_it(folder: Path, start: Start) -> None:
    behind = start()
    with fronting(folder, f"{behind.url}/v1") as front:
        whole = front.client.chat.completions.create(
            model="front", messages=[{"role": "user", "content": "one two three"}]
        )
        assert whole.choices[0].message.content == "one two three"
        assert whole.choices[0].finish_reason == "stop"
        assert (whole.model, whole.system_fingerprint) == ("front@v3", DIGEST)
        counted = behind.rows[0]["tokens"]
        assert whole.usage is not None
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (counted["prompt"], counted["completion"])
        pieces = list(
            front.client.chat.completions.create(
                model="front",
                messages=[{"role": "user", "content": "one two three"}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert "".join(each.choices[0].delta.content or "" for each in pieces if each.choices) == "one two three"
        assert pieces[-1].usage is not None
        assert pieces[-1].usage.completion_tokens == 3
        for row in front.rows:
            assert (row["release"], row["model"], row["status"]) == (DIGEST, "front@v3", "ok")
            place = behind.url.removeprefix("http://")
            reported = {"place": place, "model": "docs-assistant@v1", "fingerprint": THEIRS, "attempts": 1}
            assert row["upstream"] == reported


def test_what_was_asked_for_reaches_the_server(folder: Path, start: Start) -> None:
    behind = start()
    with fronting(folder, f"{behind.url}/v1", release={"system_prompt": "Be short."}) as front:
        found = front.chat(
            "one two three four", stop=["three"], seed=7, temperature=0.5, top_p=0.9, max_tokens=50, logprobs=True
        ).json()
        (asked,) = behind.engine.requests
        assert (asked.stop, asked.seed, asked.temperature, asked.top_p) == (("three",), 7, 0.5, 0.9)
        assert asked.max_tokens == 50
        assert behind.rows[0]["messages"][0] == {"role": "system", "content": "Be short."}
        assert [each["logprob"] for each in found["choices"][0]["logprobs"]["content"]][:2] == [-0.5, -0.5]
        front.chat("one two three", n=2, temperature=1, seed=1)
        assert sorted(each.seed or 0 for each in behind.engine.requests[1:]) == [1, 2]
        assert front.chat("one two three", max_tokens=2).json()["choices"][0]["finish_reason"] == "length"
        text = front.http.post("/v1/completions", json={"prompt": "four five"}).json()
        assert text["choices"][0]["text"] == "four five"
        assert behind.rows[-1]["endpoint"] == "completions"


def test_a_client_that_leaves_ends_the_work_there(folder: Path, start: Start) -> None:
    behind = start(pace=0.05)
    with fronting(folder, f"{behind.url}/v1") as front:
        body = {"messages": [{"role": "user", "content": "word " * 120}], "stream": True}
        with front.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_bytes())
        until(lambda: len(behind.engine.cancelled) == 1)
        until(lambda: bool(front.rows))
        assert front.rows[0]["status"] == "cancelled"
        assert front.rows[0]["tokens"]["completion"] < 100
        (state,) = front.engine.upstreams()
        assert (state.running, state.outcomes, state.breaker) == (0, {"left": 1}, "closed")


def test_tools_go_there_and_their_calls_come_back(folder: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        calls = [
            {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}},
            {"index": 0, "function": {"arguments": '{"city": "Be'}},
            {"index": 0, "function": {"arguments": 'rn"}'}},
            {"index": 1, "id": "call_2", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
        ]
        stream(
            handler,
            piece("", delta={"role": "assistant"}),
            *(piece(delta={"tool_calls": [call]}) for call in calls),
            piece(reason="tool_calls"),
        )

    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    said: list[Any] = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "a12345678",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "a12345678", "content": "rain"},
    ]
    with Misbehaving(answer) as behind, fronting(folder, behind.url) as front:
        for streamed in (False, True):
            if streamed:
                with front.client.chat.completions.stream(model="front", messages=said, tools=[tool]) as events:
                    found = events.get_final_completion().choices[0]
            else:
                found = front.client.chat.completions.create(model="front", messages=said, tools=[tool]).choices[0]
            assert found.finish_reason == "tool_calls"
            calls = found.message.tool_calls or []
            assert [(each.function.name, json.loads(each.function.arguments)) for each in calls] == [
                ("weather", {"city": "Bern"}),
                ("clock", {}),
            ]
        asked = behind.asked[0]
        assert asked["tools"][0]["function"]["name"] == "weather"
        assert asked["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"city": "Bern"}'
        assert asked["messages"][2] == {"role": "tool", "tool_call_id": "a12345678", "content": "rain"}


def test_token_ids_are_sent_where_the_release_has_the_template(folder: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        choice = {"index": 0, "text": "fine", "finish_reason": "stop", "logprobs": {"token_logprobs": [-0.25]}}
        stream(handler, {"model": "m", "choices": [choice]})

    with Misbehaving(answer) as behind, fronting(folder, behind.url, ask="tokens") as front:
        found = front.chat("the value", logprobs=True).json()["choices"][0]
        assert found["message"]["content"] == "fine"
        assert found["logprobs"]["content"][0]["logprob"] == -0.25
        assert behind.paths == ["/v1/completions"]
        tokenizer = front.engine.tokenizer
        assert behind.asked[0]["prompt"] == tokenizer.encode_chat([{"role": "user", "content": "the value"}])


FAULTS: dict[str, tuple[Callable[[BaseHTTPRequestHandler], None], int, str]] = {
    "500": (lambda h: reply(h, 500, {"error": {"message": "the words of the user"}}), 503, "upstream_unavailable"),
    "429": (lambda h: reply(h, 429, {}, Retry_After="7"), 429, "upstream_busy"),
    "401": (lambda h: reply(h, 401, {"error": {"message": f"wrong key {KEY}"}}), 502, "upstream_misconfigured"),
    "404": (lambda h: reply(h, 404, {"error": {"message": "no such model"}}), 502, "upstream_misconfigured"),
    "302": (lambda h: reply(h, 302, {}, Location="http://127.0.0.1:1/"), 502, "upstream_misconfigured"),
    "400": (lambda h: reply(h, 400, {"error": {"message": "the words of the user"}}), 400, "refused_by_model"),
    "too long": (
        lambda h: reply(h, 400, {"error": {"message": "...", "code": "context_length_exceeded"}}),
        400,
        "context_length_exceeded",
    ),
    "a page": (lambda h: reply(h, 200, "<html>"), 502, "upstream_garbled"),
    "no JSON": (lambda h: stream(h, "{nonsense"), 502, "upstream_garbled"),
    "JSON of others": (lambda h: stream(h, {"choices": "many"}), 502, "upstream_garbled"),
    "half a character": (lambda h: stream(h, '{"choices":[{"delta":{"content":"\\ud800"}}]}'), 502, "upstream_garbled"),
    "no end": (lambda h: stream(h, done=True), 502, "upstream_garbled"),
    "a strange end": (lambda h: stream(h, piece(reason="gone fishing")), 502, "upstream_garbled"),
    "two answers": (lambda h: stream(h, {"choices": [{"index": 1}, {"index": 0}]}), 502, "upstream_garbled"),
    "an error": (lambda h: stream(h, {"error": {"message": "out of memory"}}), 503, "upstream_unavailable"),
    "calls of nothing": (
        lambda h: stream(
            h, piece(delta={"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}), piece(reason="stop")
        ),
        502,
        "upstream_garbled",
    ),
    "hung up": (lambda h: h.connection.shutdown(2), 503, "upstream_unavailable"),
    "our own key": (lambda h: stream(h, piece("Bearer " + KEY[:9]), piece(KEY[9:])), 502, "upstream_garbled"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_there_is_a_clean_error_here(
    fault: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    caplog.set_level("DEBUG", logger="treadle")
    answer, status, code = FAULTS[fault]
    with (
        Misbehaving(answer) as behind,
        fronting(folder, behind.url, api_key="${env:UPSTREAM_KEY}", retries=0) as front,
    ):
        found = front.chat("the words of the user")
        assert (found.status_code, found.json()["error"]["code"]) == (status, code), found.text
        assert "words of the user" not in found.text
        assert found.headers.get("retry-after") == {"429": "7"}.get(fault, found.headers.get("retry-after"))
        (row,) = front.rows
        assert (row["status"], row["error"]) == ("failed", code)
        assert behind.keys == [f"Bearer {KEY}"]
        streamed = front.chat(stream=True)
        assert streamed.status_code == status or code in streamed.text  # what came before is with the client
        said = caplog.text + json.dumps(front.rows) + found.text
        assert KEY not in said
        assert front.http.get("/health/ready").status_code == 200


def test_a_server_that_hangs_is_given_up(folder: Path) -> None:
    def late(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(2)

    def stuck(handler: BaseHTTPRequestHandler) -> None:
        stream(handler, piece("one"), done=False)
        handler.close_connection = False
        time.sleep(2)

    def dripping(handler: BaseHTTPRequestHandler) -> None:
        for _ in range(100):
            handler.wfile.write(b": alive\n\n") if _ else stream(handler, piece("one"), done=False)
            handler.wfile.flush()
            time.sleep(0.05)

    for answer, limits in ((late, {"silence": 0.3}), (stuck, {"silence": 0.3}), (dripping, {"timeout": 0.5})):
        with Misbehaving(answer) as behind, fronting(folder, behind.url, retries=0, **limits) as front:
            begun = time.monotonic()
            found = front.chat()
            assert (found.status_code, found.json()["error"]["code"]) == (504, "upstream_timeout")
            assert time.monotonic() - begun < 1.5


def test_claims_that_cannot_be_are_not_believed(folder: Path) -> None:
    usage = {"prompt_tokens": -5, "completion_tokens": 10**15}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        name = "x\n" + "y" * 999
        stream(handler, piece("one"), piece(" two", "stop"), {"choices": [], "usage": usage, "model": name})

    with Misbehaving(answer) as behind, fronting(folder, behind.url) as front:
        found = front.chat("hi").json()["usage"]
        assert found["completion_tokens"] == 2
        assert found["prompt_tokens"] == len(front.engine.tokenizer.encode_chat([{"role": "user", "content": "hi"}]))
        assert front.rows[0]["upstream"]["model"] == "x?" + "y" * 198


@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_that_overstates_its_tokens_empties_no_budget(folder: Path, tmp_path: Path, streamed: bool) -> None:
    claimed = 99_999_999
    usage = {
        "prompt_tokens": claimed,
        "completion_tokens": claimed,
        "prompt_tokens_details": {"cached_tokens": claimed},
    }

    def answer(handler: BaseHTTPRequestHandler) -> None:
        stream(handler, piece("one"), piece(" two", "stop"), {"choices": [], "usage": usage})

    book = Book(tmp_path / "store")
    key, secret = book.create("somebody", Limit.parse("tokens", "8000/day"))
    with Misbehaving(answer) as behind, fronting(folder, behind.url, keys=book.use()) as front:
        for _ in range(3):
            found = ask(front.url, secret, "hi", stream=streamed, max_tokens=50)
            assert found.status_code == 200, found.text
            assert "two" in found.text
        rows = front.rows
    for row in rows:
        tokens = row["tokens"]
        assert row["upstream"]["overstated"] == {"prompt": claimed, "completion": claimed}
        assert tokens["completion"] == 2  # what came
        assert len("hi") < tokens["prompt"] < 1200  # a token is a byte at least, and no template is that long
        assert tokens["cached"] == tokens["prompt"]
    assert book.used(key).tokens == sum(row["tokens"]["prompt"] + row["tokens"]["completion"] for row in rows)
    book.close()


def test_a_server_that_goes_on_is_paid_for_what_was_asked(folder: Path, tmp_path: Path) -> None:
    book = Book(tmp_path / "store")
    key, secret = book.create("somebody", Limit.parse("tokens", "1000/day"))

    def answer(handler: BaseHTTPRequestHandler) -> None:
        stream(handler, *(piece(" word") for _ in range(400)), piece("", "length"))

    with Misbehaving(answer) as behind, fronting(folder, behind.url, keys=book.use()) as front:
        found = ask(front.url, secret, "hi", max_tokens=5)
        assert found.json()["usage"]["completion_tokens"] == 5
        assert front.rows[0]["upstream"]["overstated"] == {"completion": 400}
    assert book.used(key).tokens == found.json()["usage"]["total_tokens"]
    book.close()


def test_a_count_that_can_be_is_believed_also_where_it_is_more_than_ours(folder: Path) -> None:
    usage = {"prompt_tokens": 400, "completion_tokens": 30}  # a long template, and words of several tokens

    def answer(handler: BaseHTTPRequestHandler) -> None:
        stream(handler, piece("one"), piece(" two", "stop"), {"choices": [], "usage": usage})

    with Misbehaving(answer) as behind, fronting(folder, behind.url) as front:
        found = front.chat("hi", max_tokens=50).json()["usage"]
        assert (found["prompt_tokens"], found["completion_tokens"]) == (400, 30)
        assert "overstated" not in front.rows[0]["upstream"]


def test_log_probabilities_that_are_not_given_are_said_to_be_missing(folder: Path) -> None:
    with (
        Misbehaving(lambda h: stream(h, piece("one"), piece(reason="stop"))) as behind,
        fronting(folder, behind.url) as front,
    ):
        found = front.chat(logprobs=True)
        assert found.status_code == 400
        assert "no log-probabilities" in found.text
        assert front.breakers() == ["closed"]


def test_a_schema_goes_there_only_where_the_file_says_that_it_is_held(folder: Path) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    with Misbehaving(lambda h: stream(h, piece("{}"), piece(reason="stop"))) as behind:
        with fronting(folder, behind.url) as front:
            assert front.chat(response_format=form).status_code == 400
        with fronting(folder, behind.url, structured=True) as front:
            assert front.chat(response_format=form).status_code == 200
            assert behind.asked[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_a_call_that_is_asked_for_is_a_schema_to_the_server_and_told_in_words(folder: Path) -> None:
    tool = {"type": "function", "function": {"name": "move", "parameters": {"required": ["to"]}}}
    call = '{"name": "move", "arguments": {"to": 3}}'
    with Misbehaving(lambda h: stream(h, piece(call), piece(reason="stop"))) as behind:
        with fronting(folder, behind.url) as front:
            assert front.chat(tools=[tool], tool_choice="required").status_code == 400
        with fronting(folder, behind.url, structured=True) as front:
            (choice,) = front.chat(tools=[tool], tool_choice="required").json()["choices"]
            assert choice["message"]["tool_calls"][0]["function"] == {"name": "move", "arguments": '{"to": 3}'}
            (sent,) = behind.asked
            assert "tools" not in sent
            assert '"name": "move"' in sent["messages"][0]["content"]
            schema = sent["response_format"]["json_schema"]["schema"]
            assert schema["properties"]["name"] == {"const": "move"}
            assert schema["$defs"]["f0"] == {"type": "object", "required": ["to"]}


def test_a_context_that_the_server_says_is_kept_to(folder: Path) -> None:
    listed = {"data": [{"id": "other", "max_model_len": 5}, {"id": "docs-assistant", "max_model_len": 30}]}
    with (
        Misbehaving(lambda h: None, listed=lambda h: reply(h, 200, listed)) as behind,
        fronting(folder, behind.url) as front,
    ):
        found = front.chat("word " * 50)
        assert found.json()["error"]["code"] == "context_length_exceeded"
        assert not behind.asked


def test_what_is_wrong_at_the_start_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    monkeypatch.setenv("NO_ADDRESS", "file:///etc")
    with Misbehaving(lambda h: None, listed=lambda h: reply(h, 401, {})) as behind:
        wrong: list[tuple[list[str], dict[str, Any], str]] = [
            ([behind.url], {}, "answered 401; check urls, model and api_key"),
            (["http://127.0.0.1:1/v1"], {}, r"127.0.0.1:1 does not answer \(ConnectionRefusedError\); start the"),
            (["${env:NOT_SET}"], {}, "NOT_SET of the environment is not set"),
            (["${env:NO_ADDRESS}"], {}, "expected an address such as"),
            (["ftp://host"], {}, "expected an address such as"),
            (["http://user:pw@host/v1"], {}, "without a login in it"),
            (["http://host/v1"], {"api_key": "${env:UPSTREAM_KEY}"}, "a key is sent over https only"),
            (["https://host/v1"], {"api_key": KEY}, "a key does not stand in the file"),
            (["https://host/v1"] * 2, {}, "the same address twice"),
            ([behind.url], {"retrys": 1}, "deploy.upstream.retrys: Extra inputs"),
            ([behind.url], {"timeout": 0}, "deploy.upstream.timeout: Input should be greater"),
        ]
        for urls, settings, said in wrong:
            with pytest.raises(UserError, match=said) as caught, fronting(folder, *urls, **settings):
                pass
            assert KEY not in str(caught.value)
            assert "pw" not in str(caught.value)


def test_one_client_s_odd_requests_do_not_open_the_breaker_for_all(folder: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.endswith("/chat/completions"):
            stream(handler, piece("fine"), piece(reason="stop"))
        else:
            reply(handler, 404, {})

    rules = {"failures": 1, "window": 60, "pause": 60}
    with Misbehaving(answer) as behind, fronting(folder, behind.url, breaker=rules) as front:
        for _ in range(3):
            found = front.http.post("/v1/completions", json={"prompt": "x"})
            assert found.status_code == 400
        assert front.chat().status_code == 200


def test_the_openai_client_gets_errors_of_its_own_kinds(folder: Path) -> None:
    with Misbehaving(FAULTS["429"][0]) as behind, fronting(folder, behind.url) as front:
        with pytest.raises(openai.RateLimitError):
            front.client.chat.completions.create(model="front", messages=[{"role": "user", "content": "x"}])
        assert len(behind.asked) == 1  # one that has all it can do is not asked again at once
        with pytest.raises(openai.RateLimitError):
            front.client.chat.completions.create(model="front", messages=[{"role": "user", "content": "x"}])
        assert len(behind.asked) == 1  # nor by the next request, before its time


def test_two_servers_in_a_row_give_the_answer_of_the_last(folder: Path) -> None:
    with (
        serve_toy() as behind,
        fronting(folder, f"{behind.url}/v1", release={"name": "docs-assistant@v1"}) as middle,
        fronting(folder, f"{middle.url}/v1") as front,
    ):
        assert front.chat("one two").json()["choices"][0]["message"]["content"] == "one two"
        assert front.rows[0]["upstream"]["fingerprint"] == DIGEST
        assert middle.rows[0]["upstream"]["fingerprint"] == THEIRS


def vectors(*each: tuple[int, Any]) -> dict[str, Any]:
    return {"object": "list", "data": [{"object": "embedding", "index": at, "embedding": said} for at, said in each]}


EMBEDS = {"name": "vectors@v1", "asking": "embed"}


def test_embeddings_are_those_of_the_server(folder: Path, start: Start) -> None:
    behind = start(release=EMBEDS)
    with fronting(folder, f"{behind.url}/v1", release=EMBEDS, model="vectors") as front:
        create = front.client.embeddings.create
        packed = create(model="vectors", input=["abc", "aaaa"])  # base64 by itself
        found = create(model="vectors", input=["abc", "aaaa"], encoding_format="float")
        for given in (packed, found):
            assert [each.embedding for each in given.data] == [[3.0, 0.5, 1.0], [4.0, 2.0, 1.0]]
        assert found.usage.prompt_tokens > 0
        assert [row["status"] for row in front.rows] == ["ok", "ok"]
        assert len(behind.rows) == 2
        place = behind.url.removeprefix("http://")
        told = {"place": place, "model": "vectors@v1", "fingerprint": None, "attempts": 1}
        assert [row["upstream"] for row in front.rows] == [told, told]


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (lambda handler: reply(handler, 200, vectors((1, [1.0]), (0, [2.0]))), 200, None),
        (lambda handler: reply(handler, 200, vectors((0, [1.0]))), 502, "upstream_garbled"),
        (lambda handler: reply(handler, 200, vectors((0, [1.0]), (0, [2.0]))), 502, "upstream_garbled"),
        (lambda handler: reply(handler, 200, vectors((0, [1.0]), (1, [2.0, 3.0]))), 502, "upstream_garbled"),
        (lambda handler: reply(handler, 200, vectors((0, []), (1, []))), 502, "upstream_garbled"),
        (lambda handler: reply(handler, 200, vectors((0, ["x"]), (1, [1.0]))), 502, "upstream_garbled"),
        (lambda handler: reply(handler, 200, []), 502, "upstream_garbled"),
        (lambda handler: stream(handler, piece("fine"), piece(reason="stop")), 502, "upstream_garbled"),
        (lambda handler: reply(handler, 500, {"error": KEY}), 503, "upstream_unavailable"),
        (lambda handler: reply(handler, 401, {}), 502, "upstream_misconfigured"),
        (lambda handler: reply(handler, 429, {}), 429, "upstream_busy"),
        (lambda handler: reply(handler, 404, {}), 502, "upstream_misconfigured"),
        (lambda handler: reply(handler, 400, {"error": KEY}), 400, "wrong_endpoint"),
    ],
)
def test_embeddings_that_go_wrong_there_are_a_clean_error_here(
    folder: Path, answer: Callable[[BaseHTTPRequestHandler], None], status: int, code: str | None
) -> None:
    with Misbehaving(answer) as behind, fronting(folder, behind.url, release=EMBEDS, retries=0) as front:
        found = front.http.post("/v1/embeddings", json={"input": ["a", "b"]})
        assert found.status_code == status, found.text
        assert KEY not in found.text
        assert behind.paths == ["/v1/embeddings"]
        if code is None:
            assert [each["embedding"] for each in found.json()["data"]] == [[2.0], [1.0]]
        else:
            assert found.json()["error"]["code"] == code
            assert [row["status"] for row in front.rows] == ["failed"]
        assert front.chat().status_code == 400  # of a release that makes embeddings


def test_a_release_that_chats_asks_no_server_for_embeddings(folder: Path) -> None:
    with Misbehaving(lambda handler: reply(handler, 404, {})) as behind, fronting(folder, behind.url) as front:
        found = front.http.post("/v1/embeddings", json={"input": "a"})
        assert (found.status_code, found.json()["error"]["code"]) == (400, "wrong_endpoint")
        assert behind.asked == []
        assert front.breakers() == ["closed"]


def test_many_texts_go_in_several_requests_and_vectors_may_be_cut(folder: Path, start: Start) -> None:
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, "hidden_size": 3, "matryoshka_dimensions": [2, 3]}))
    behind = start(release=EMBEDS)
    with fronting(folder, f"{behind.url}/v1", release=EMBEDS, model="vectors") as front:
        texts = ["a" * size for size in range(1, 201)]
        found = front.client.embeddings.create(model="vectors", input=texts, dimensions=2, encoding_format="float")
        assert [len(each.embedding) for each in found.data] == [2] * 200
        assert len(behind.rows) == 2
        ratios = [each.embedding[0] / each.embedding[1] for each in found.data]
        assert ratios == pytest.approx([2.0] * 200)  # letters over half the count of a: in order or not, so


def test_embeddings_are_asked_for_elsewhere_where_one_server_fails(folder: Path, start: Start) -> None:
    behind = start(release=EMBEDS)
    with (
        Misbehaving(lambda handler: reply(handler, 503, {})) as broken,
        fronting(
            folder, broken.url, f"{behind.url}/v1", release=EMBEDS, model="vectors", spread="round_robin"
        ) as front,
    ):
        for _ in range(4):
            assert front.http.post("/v1/embeddings", json={"input": "abc"}).status_code == 200
        assert len(broken.asked) > 0
        assert len(behind.rows) == 4
        assert {row["upstream"]["place"] for row in front.rows} == {behind.url.removeprefix("http://")}
        assert {row["upstream"]["attempts"] for row in front.rows} == {2}  # the broken one comes first each time


def test_the_record_names_every_server_that_made_embeddings(folder: Path, start: Start) -> None:
    first, second = start(release=EMBEDS), start(release=EMBEDS)
    urls = [f"{each.url}/v1" for each in (first, second)]
    with fronting(folder, *urls, release=EMBEDS, model="vectors", spread="round_robin") as front:
        assert front.http.post("/v1/embeddings", json={"input": ["a"] * 200}).status_code == 200
        (row,) = front.rows
        assert [row["upstream"]["place"], *row["upstream"]["others"]] == [
            each.url.removeprefix("http://") for each in (first, second)
        ]
