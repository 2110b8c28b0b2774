"""What the API refuses: the right status, OpenAI's shape, and a message that names the field."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_server import Served

from treadle.core.errors import TreadleError, UserError
from treadle.lm.engine import ClassScores, TaggedSpan

HELLO = [{"role": "user", "content": "hello"}]


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return body["error"]  # type: ignore[no-any-return]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": "hello"}, "messages", "expected `array`"),
    ({"messages": []}, "messages", "length >= 1"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "expected a text"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "king"),
    ({"messages": [{"role": 3, "content": "x"}]}, "messages[0].role", "expected `str`"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "got `int`"),
    ({"messages": [*HELLO, {"role": "function", "content": "x"}]}, "messages[1].role", "not supported"),
    ({"messages": [*HELLO, {"role": "tool", "content": "x"}]}, "messages", "no call waits for it"),
    ({"messages": [{"role": "user", "content": "x", "tool_call_id": "c"}]}, "messages[0].tool_call_id", "role tool"),
    ({"messages": [*HELLO, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]}, "messages",
     "no message answers it"),
    ({"messages": [*HELLO, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
     "messages[1].tool_calls", "not JSON"),
    ({"messages": [{"role": "user", "content": "x", "name": "bob"}]}, "messages[0].name", "not supported"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
     "messages[0].content[0].type", "not supported"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", "a text"),
    ({"temperature": "hot"}, "temperature", "expected `float | null`, got `str`"),
    ({"temperature": 2.1}, "temperature", "<= 2"),
    ({"temperature": -1}, "temperature", ">= 0"),
    ({"top_p": 0}, "top_p", "> 0"),
    ({"n": 9}, "n", "<= 8"),
    ({"n": True}, "n", "got `bool`"),
    ({"max_tokens": 0}, "max_tokens", ">= 1"),
    ({"max_tokens": 1.5}, "max_tokens", "got `float`"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "contradicts"),
    ({"stop": [""]}, "stop[0]", "length >= 1"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "length <= 4"),
    ({"seed": 2**70}, "seed", ""),
    ({"stream": "yes"}, "stream", "expected `bool | null`"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
    ({"metadata": {"a": 1}}, "metadata[...]", "expected `str`"),
    ({"user": "x" * 600}, "user", "length <= 512"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "required"),
    ({"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]}, "tools[0].function.strict", "supp"),
    ({"tool_choice": "required"}, "tool_choice", "not supported"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name", "required"),
    ({"response_format": {"type": "json_object"}}, "response_format", "on the toy engine, is not supported"),
    ({"response_format": {"type": "yaml"}}, "response_format.type", "yaml"),
    ({"logit_bias": {"5": 100}}, "logit_bias", "not supported"),
    ({"presence_penalty": 0.5}, "presence_penalty", "not supported"),
    ({"top_logprobs": 3, "logprobs": True}, "top_logprobs", "on the toy engine, is not supported"),
    ({"reasoning_effort": "high"}, "reasoning_effort", "not supported"),
    ({"temprature": 0.5}, "temprature", "Unrecognized"),
    ({"context": [{"title": "x"}]}, "context[0].text", "required"),
    ({"context": [{"text": "x"}], "messages": [{"role": "system", "content": "x"}]}, "context", "user message"),
    ({"model": "gpt-9"}, "model", "docs-assistant@v1"),
    ({"model": "docs-assistant@v2"}, "model", "docs-assistant@v1"),
]  # fmt: skip


def test_every_wrong_field_is_named(served: Served) -> None:
    for change, param, said in WRONG:
        response = served.http.post("/v1/chat/completions", json={"messages": HELLO} | change)
        error = error_of(response, 404 if param == "model" else 400)
        assert (error["param"], error["type"]) == (param, "invalid_request_error"), change
        assert said.replace("`", "") in error["message"], error
    assert served.rows == []
    assert served.engine.requests == []


def test_fields_that_ask_for_nothing_are_let_through(served: Served) -> None:
    response = served.chat(
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        presence_penalty=0,
        frequency_penalty=0.0,
        logit_bias={},
        service_tier="auto",
        parallel_tool_calls=True,
        store=True,
        metadata={"page": "intro"},
        prompt_cache_key="k",
    )
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "a\x00b"}]}',
        b'{"messages": NaN}',
        b'{"messages": [], "temperature": 1e999}',
        b"[" * 100_000,
        b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"messages": [{"role": "user", "content": "x"}], "tools":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"messages": [{"role": "user", "content": "x"}], "tools":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        b'{"messages": [{"role": "user", "content": "x"}], "n": ' + b"9" * 100_000 + b"}",
        b"\x1f\x8b\x08\x00 not json",
    ],
    ids=lambda body: repr(body[:30]),
)
def test_bodies_that_are_no_requests(served: Served, body: bytes) -> None:
    for path in (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/classify",
        "/v1/tag",
        "/v1/embeddings",
        "/v1/feedback",
    ):
        error_of(served.http.post(path, content=body), 400)
    assert served.chat().status_code == 200
    assert len(served.rows) == 1


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "stop", "seed", "stream",
    "stream_options", "user", "store", "metadata", "logprobs", "top_logprobs", "tools", "tool_choice", "context",
    "response_format", "presence_penalty", "logit_bias", "prompt", "input", "interaction", "thumbs", "score",
    "correction", "comment", "encoding_format", "dimensions", "text_1", "text_2", "query", "documents", "top_n",
]  # fmt: skip


def test_any_value_in_any_field_is_answered_or_refused_but_never_breaks(served: Served) -> None:
    started = {"/v1/chat/completions": {"messages": HELLO}, "/v1/completions": {"prompt": "x"}}
    paths = [*started, "/v1/classify", "/v1/tag", "/v1/embeddings", "/v1/score", "/v1/rerank", "/v1/feedback"]

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(paths), st.dictionaries(st.sampled_from(FIELDS), anything, min_size=1, max_size=3))
    def check(path: str, fields: dict[str, Any]) -> None:
        body = json.dumps(started.get(path, {}) | fields).encode()
        response = served.http.post(path, content=body)
        assert response.status_code in (200, 400, 404), (response.status_code, response.text)
        if response.status_code != 200:
            error_of(response, response.status_code)

    check()


def test_over_long_prompts_say_the_counts(served: Served) -> None:
    error = error_of(served.chat("word " * 1000), 400)
    assert error["code"] == "context_length_exceeded"
    assert "400 tokens" in error["message"]
    assert "1003" in error["message"] or "1002" in error["message"]
    error = error_of(served.chat("two words", max_tokens=399), 400)
    assert error["code"] == "context_length_exceeded"
    assert "403 tokens (4 in the messages, 399 in the answer)" in error["message"]
    with pytest.raises(openai.BadRequestError) as caught:
        served.client.chat.completions.create(
            model="docs-assistant", messages=[{"role": "user", "content": "x " * 999}]
        )
    assert caught.value.code == "context_length_exceeded"
    error = error_of(served.http.post("/v1/completions", json={"prompt": "x " * 999}), 400)
    assert (error["param"], error["message"].count("Shorten the prompt")) == ("prompt", 1)
    assert served.rows == []


def test_the_models_own_refusal_is_passed_on_without_the_servers_paths(served: Served) -> None:
    messages = [*HELLO, {"role": "system", "content": "late"}]
    error = error_of(served.http.post("/v1/chat/completions", json={"messages": messages}), 400)
    assert error["message"] == "the model's chat template refuses these messages: a system message comes first"


def test_large_bodies(start: Callable[..., Served]) -> None:
    served = start(max_body_bytes=10_000)
    error_of(served.chat("x" * 20_000), 413)

    def chunks() -> Any:
        for _ in range(100):
            yield b" " * 1000

    # Without a declared length the server has to count.
    with httpx.Client(base_url=served.url) as client:
        error_of(client.post("/v1/chat/completions", content=chunks()), 413)
    assert served.chat().status_code == 200


def test_a_body_that_does_not_come(start: Callable[..., Served]) -> None:
    served = start(body_seconds=0.3)
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        answer = sock.recv(10_000)
        while chunk := sock.recv(10_000):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code":"timeout"' in answer


@pytest.mark.parametrize(
    "head",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000,
        b"GET / HTTP/1.1\r\nx: " + b"a" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 50_000,
        bytes(range(256)) * 10,
    ],
    ids=lambda head: repr(head[:30]),
)
def test_hostile_heads_harm_nobody(served: Served, head: bytes) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        try:
            sock.sendall(head)
            answer = sock.recv(1000)
        except ConnectionError:
            answer = b""  # closed on us while we still sent
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 404", b"")
    assert served.chat().status_code == 200


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    request = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"
    last = b"GET /v1/nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(request * 5 + last)
        answer = b""
        while chunk := sock.recv(10_000):
            answer += chunk
    assert answer.count(b"HTTP/1.1 200") == 5
    assert answer.index(b"HTTP/1.1 404") > answer.rindex(b"HTTP/1.1 200")


def test_urls_and_methods(served: Served) -> None:
    assert error_of(served.http.get("/v1/nothing"), 404)["code"] == "unknown_url"
    assert error_of(served.http.get("/v1/chat/completions"), 405)["code"] == "method_not_allowed"


def test_the_key(start: Callable[..., Served]) -> None:
    served = start(key="secret-\u00e9")
    good = {"authorization": "Bearer secret-\u00e9".encode()}
    with httpx.Client(base_url=served.url) as client:
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Basic secret"},
            {"authorization": ""},
            {"authorization": b"Bearer \xff\xfe"},
        ):
            for path in ("/v1/models", "/metrics"):
                error = error_of(client.get(path, headers=headers), 401)
                assert error["code"] == "invalid_api_key"
            error_of(client.post("/v1/chat/completions", json={"messages": HELLO}, headers=headers), 401)
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/ready").status_code == 200
        assert client.get("/openapi.json").json()["components"]["securitySchemes"]
        assert client.get("/metrics", headers=good).status_code == 200
        body = {"messages": HELLO}
        assert client.post("/v1/chat/completions", json=body, headers=good).status_code == 200
    assert [row["key"] for row in served.rows] == ["default"]
    assert "secret" not in repr(served.gateway.settings)
    assert "secret" not in json.dumps(served.rows)


def test_web_pages_of_others_cannot_use_a_server_without_a_key(served: Served) -> None:
    body = {"messages": HELLO}
    for origin, status in (("http://evil.example", 403), ("null", 403), ("http://localhost:3000", 200)):
        response = served.http.post("/v1/chat/completions", json=body, headers={"origin": origin})
        assert response.status_code == status


def test_a_full_queue_says_when_to_come_back(start: Callable[..., Served]) -> None:
    served = start(pace=0.1, max_in_flight=2)
    long = [{"role": "user", "content": "x " * 100}]
    create = served.client.chat.completions.create
    with (
        create(model="docs-assistant", messages=long, stream=True) as first,
        create(model="docs-assistant", messages=long, stream=True) as second,
    ):
        assert next(iter(first)).id != next(iter(second)).id
        third = served.chat()
        error = error_of(third, 429)
        assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
        assert int(third.headers["retry-after"]) >= 1


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_is_gone(served: Served, stream: bool) -> None:
    served.engine.failing = TreadleError("the engine's process ended")
    response = served.chat(stream=stream)
    assert error_of(response, 503)["code"] == "engine_unavailable"
    assert response.headers["retry-after"]
    [row] = served.rows
    assert (row["status"], row["error"], row["finish_reason"]) == ("failed", "engine_unavailable", "error")


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (UserError("/srv/x: top_p: the engine cannot"), 400, "refused_by_model"),
        (RuntimeError("hello is what the user said"), 500, "internal_error"),
    ],
)
def test_what_an_engine_refuses_and_what_it_breaks_on(
    served: Served, failure: Exception, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    served.engine.failing = failure
    assert error_of(served.chat("hello"), status)["code"] == code
    assert "user said" not in caplog.text
    assert served.rows[0]["error"] == code


def test_an_engine_that_dies_in_the_middle_of_a_stream(served: Served) -> None:
    served.engine.failing, served.engine.fail_after = TreadleError("gone"), 2
    seen = []
    with pytest.raises(openai.APIError, match="not available"):
        for chunk in served.client.chat.completions.create(
            model="docs-assistant", messages=[{"role": "user", "content": "a b c d"}], stream=True
        ):
            seen += [chunk.choices[0].delta.content or ""]
    assert "".join(seen) == "a b"
    [row] = served.rows
    assert (row["status"], row["answer"], row["tokens"]["completion"]) == ("failed", "a b", 2)


def test_an_engine_that_ends_without_saying_why(served: Served) -> None:
    served.engine.silent = True
    assert error_of(served.chat(), 500)["code"] == "engine_failed"
    assert served.rows[0]["status"] == "failed"


def test_an_answer_that_takes_too_long(start: Callable[..., Served]) -> None:
    served = start(pace=0.2, request_seconds=0.5)
    assert error_of(served.chat("a b c d e f g"), 504)["code"] == "timeout"
    assert served.rows[0]["error"] == "timeout"
    for _ in range(100):
        if served.engine.cancelled:
            break
        time.sleep(0.02)
    assert served.engine.cancelled == [served.rows[0]["id"]]


def test_a_record_that_cannot_be_written_lets_nothing_out(served: Served) -> None:
    served.recorder.broken = True
    assert error_of(served.chat("hello"), 503)["code"] == "record_unavailable"
    with pytest.raises(openai.APIError, match="record"):
        for chunk in served.client.chat.completions.create(model="docs-assistant", messages=HELLO, stream=True):
            assert chunk.choices[0].finish_reason is None
    for path in ("/health/ready", "/ping", "/v2/health/ready", "/v2/models/docs-assistant/ready"):
        assert served.http.get(path).status_code == 503, path
    assert served.http.get("/health/ready").json() == {"status": "record_unavailable"}
    assert served.http.get("/health/live").status_code == 200
    served.recorder.broken = False
    # Nobody is sent here while it is not ready, so that it is asked has to be enough.
    assert served.http.get("/v2/models/docs-assistant/ready").status_code == 200
    assert served.http.get("/health/ready").json() == {"status": "ok"}
    assert served.chat().status_code == 200


def test_tasks_a_model_was_not_made_for(served: Served) -> None:
    assert error_of(served.http.post("/v1/classify", json={"input": "x"}), 400)["code"] == "wrong_endpoint"
    served.engine.failing = NotImplementedError()
    error = error_of(served.http.post("/v1/embeddings", json={"input": "x"}), 400)
    assert "cannot do embeddings" in error["message"]
    assert served.rows == []  # or they would count as failures of the release


def test_a_client_that_does_not_read_holds_up_nobody_and_not_for_ever(start: Callable[..., Served]) -> None:
    served = start(request_seconds=1.0, record="none")
    words = " ".join(["w" * 30_000] * 100)  # three megabytes of events, more than the kernel takes
    body = json.dumps({"messages": [{"role": "user", "content": words}], "stream": True}).encode()
    host, port = served.url.removeprefix("http://").split(":")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((host, int(port)))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        while not served.engine.running:
            time.sleep(0.01)
        assert served.chat().status_code == 200
        for _ in range(500):
            if len(served.rows) == 2:
                break
            time.sleep(0.02)
    slow = next(row for row in served.rows if row["stream"])
    assert (slow["status"], slow["error"]) == ("failed", "timeout")
    assert 0 < slow["tokens"]["completion"] < 100
    assert served.engine.cancelled == [slow["id"]]


@pytest.mark.parametrize(
    ("path", "method", "asking", "found"),
    [
        ("embeddings", "embed", "embed", [[1.0, float("nan")], [1.0, 2.0]]),
        ("embeddings", "embed", "embed", [[1.0, 2.0]]),
        ("classify", "classify", "classify", [ClassScores(("a", "b"), (0.5,))] * 2),
        ("classify", "classify", "classify", [ClassScores((), ())] * 2),
        ("classify", "classify", "classify", [ClassScores(("a",), (float("inf"),))] * 2),
        ("tag", "tag", "tag", [[TaggedSpan(0, 99, "NAME", 0.5)], []]),
        ("tag", "tag", "tag", [[TaggedSpan(2, 1, "NAME", 0.5)], []]),
        ("tag", "tag", "tag", [[], [], []]),
    ],
)
def test_an_engine_that_returns_nonsense(
    start: Callable[..., Served], path: str, method: str, asking: str, found: list[Any]
) -> None:
    served = start(release={"task": asking, "asking": asking})

    async def nonsense(_texts: Sequence[str]) -> list[Any]:
        return found

    setattr(served.engine, method, nonsense)
    error = error_of(served.http.post(f"/v1/{path}", json={"input": ["one", "two"]}), 500)
    assert error["code"] == "engine_failed"
    assert [(row["status"], row["error"]) for row in served.rows] == [("failed", "engine_failed")]
