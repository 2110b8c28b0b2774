"""Teachers: an endpoint that behaves and many that do not, and an engine of ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from queue import Queue

import pytest

from teacher_server import TeacherServer, completion, send
from treadle.core.errors import UserError
from treadle.lm.endpoint import EndpointTeacher, Limits
from treadle.lm.engines import BlockingEngine
from treadle.lm.teacher import EngineTeacher, Prompt, Reply, Sampling
from treadle.lm.tokenizer import ChatTokenizer

Fault = Callable[[BaseHTTPRequestHandler, int], bool]
SAMPLING = Sampling(8, 0.5, 0.9)
HOW = (SAMPLING, Limits(5.0, 0, at_once=1))


def prompts(count: int) -> list[Prompt]:
    return [Prompt(f"b3:{n}", ({"role": "user", "content": f"word {n}"},), n) for n in range(count)]


def ask(
    server: TeacherServer, count: int = 1, *, timeout: float = 5.0, retries: int = 0, key: str | None = None
) -> dict[str, Reply]:
    limits = Limits(timeout, retries, at_once=2)
    with EndpointTeacher(server.url, "m", key, SAMPLING, limits, where="here") as teacher:
        return {prompt.id: reply for prompt, reply in teacher.answer(prompts(count), {"b3:1"})}


def test_an_endpoint_is_asked_what_is_not_known() -> None:
    with TeacherServer(lambda said: said.upper()) as server:
        found = ask(server, 4)
        assert found == {f"b3:{n}": Reply(f"WORD {n}", by="fp-7") for n in (0, 2, 3)}
        body = next(each for each in server.asked if each["messages"][0]["content"] == "word 2")
        assert {name: body[name] for name in body if name != "messages"} == {
            "model": "m",
            "max_tokens": 8,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 2,
        }
        assert server.keys == {None}


def answered(status: int, value: object, **headers: str) -> Fault:
    def fault(handler: BaseHTTPRequestHandler, number: int) -> bool:
        send(handler, status, value, **headers)
        return True

    return fault


def dripping(handler: BaseHTTPRequestHandler, number: int) -> bool:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(50):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            break
        time.sleep(0.05)
    handler.close_connection = True
    return True


def dripping_headers(handler: BaseHTTPRequestHandler, number: int) -> bool:
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for place in range(400):
        try:
            handler.wfile.write(f"X-{place}: 1\r\n".encode())
            handler.wfile.flush()
        except OSError:
            break
        time.sleep(0.05)
    return True


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            answered(401, {"error": {"message": "no such key"}}),
            r"answered 401 \(no such key\); check url, model and api",
        ),
        (answered(404, "?"), "answered 404; check url"),
        (answered(302, {}, Location="http://127.0.0.1:1/"), "answered 302; check url"),
        (answered(500, {}), "answered 500, tried 1 time$"),
        (answered(200, {"choices": []}), "answered something that is no chat completion, tried 1 time$"),
        (answered(200, [[]]), "no chat completion"),
        (answered(200, completion("x" * (5 << 20))), "answered with more than 4,194,304 bytes"),
        (dripping, "takes over 0.4 s for one answer, tried 1 time$"),
        (dripping_headers, "takes over 0.4 s for one answer$"),
    ],
)
def test_what_is_wrong_with_an_endpoint_is_one_line(fault: Fault, told: str) -> None:
    with TeacherServer(str, fault) as server, pytest.raises(UserError, match=told) as caught:
        ask(server, timeout=0.4 if fault in (dripping, dripping_headers) else 5.0)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("here: 127.0.0.1:")


def test_what_fails_for_a_while_is_asked_again() -> None:
    def busy(handler: BaseHTTPRequestHandler, number: int) -> bool:
        if number < 2:
            send(handler, 503 if number else 429, {}, Retry_After="0")
        return number < 2

    with TeacherServer(str, busy) as server:
        assert ask(server, retries=2)["b3:0"].text == "word 0"
        assert len(server.asked) == 3


def test_a_prompt_that_is_refused_is_not_the_end() -> None:
    def long(handler: BaseHTTPRequestHandler, number: int) -> bool:
        if number == 1:
            send(handler, 400, {"error": {"message": "too long: word 2"}})
        return number == 1

    with TeacherServer(str, long) as server:
        replies = list(ask(server, 4).values())
        assert sorted(reply.refused for reply in replies) == ["", "", "it answered 400"]
    with (
        TeacherServer(str, answered(400, {"error": "no model m"})) as server,
        pytest.raises(UserError, match=r"refuses every prompt: it answered 400 \(no model m\)"),
    ):
        ask(server, 9)
    with TeacherServer(str, answered(200, completion("Question: x", finish="length"))) as server:
        assert ask(server)["b3:0"].cut


def by_prompt(faults: dict[str, Fault]) -> Fault:
    """Faults by the word that a prompt ends with."""

    def fault(handler: BaseHTTPRequestHandler, number: int) -> bool:
        last = str(server_of(handler).asked[number]["messages"][-1]["content"]).split()[-1]
        return last in faults and faults[last](handler, number)

    return fault


def server_of(handler: BaseHTTPRequestHandler) -> TeacherServer:
    found: TeacherServer = handler.teacher  # type: ignore[attr-defined]
    return found


def test_a_server_that_refuses_for_a_while_leaves_nothing_to_keep() -> None:
    refusing = answered(400, {"error": "busy"})
    for count in (1, 3):  # fewer than it takes to see it early
        got = []
        with (
            TeacherServer(str, refusing) as server,
            EndpointTeacher(server.url, "m", None, *HOW, where="here") as teacher,
        ):
            with pytest.raises(UserError, match="refuses every prompt"):
                got += list(teacher.answer(prompts(count), set()))
            assert got == []
    faults = {"0": refusing, "1": refusing, "2": refusing}
    with (
        TeacherServer(str, by_prompt(faults)) as server,
        EndpointTeacher(server.url, "m", None, *HOW, where="here") as teacher,
    ):
        got = list(teacher.answer(prompts(4), {"b3:3"}))  # it answers what it answered before: the three are no good
    assert [reply.refused for _, reply in got] == ["it answered 400"] * 3


@pytest.mark.parametrize(
    ("fault", "refused"),
    [
        (answered(500, {"error": "word 1"}), "it answered 500"),
        (answered(200, completion("x" * (5 << 20))), "it answered with more than 4,194,304 bytes"),
        (answered(200, [[]]), "it answered something that is no chat completion"),
        (answered(200, {"choices": [{"message": {"role": "assistant"}}]}), "it answered without a text"),
    ],
)
def test_one_prompt_that_gets_no_answer_blocks_nothing(fault: Fault, refused: str) -> None:
    with TeacherServer(str, by_prompt({"1": fault})) as server:
        with EndpointTeacher(server.url, "m", None, *HOW, where="here") as teacher:
            got = {prompt.id: reply for prompt, reply in teacher.answer(prompts(3), set())}
        with EndpointTeacher(server.url, "m", None, *HOW, where="here") as teacher:
            again = list(teacher.answer(prompts(3), {"b3:0", "b3:2"}))  # the last one left
    assert {name: reply.refused for name, reply in got.items()} == {"b3:0": "", "b3:1": refused, "b3:2": ""}
    assert [reply.refused for _, reply in again] == [refused]


def test_a_server_that_fails_for_good_refuses_nobody() -> None:
    got: list[str] = []

    def down(handler: BaseHTTPRequestHandler, number: int) -> bool:
        return number > 1 and answered(503, {})(handler, number)

    with (
        TeacherServer(str, down) as server,
        EndpointTeacher(server.url, "m", None, *HOW, where="here") as teacher,
        pytest.raises(UserError, match=r"answered 503, tried 1 time$"),
    ):
        got.extend(reply.text for _, reply in teacher.answer(prompts(4), set()))
    assert sorted(got) == ["word 0", "word 1"]


def test_what_no_file_takes_is_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_VALUE", "abcdefgh-91")
    with TeacherServer(lambda said: "half \ud83d of abcdefgh-91") as server:
        assert ask(server, key="${env:MY_VALUE}")["b3:0"].text == "half \ufffd of [secret]"


def test_a_key_stands_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "abcdefgh-0123456789-abcdefgh"
    monkeypatch.setenv("MY_VALUE", key)  # no name of a secret
    said = {"error": {"message": f"{'x' * 105} {key} is unknown"}}
    with TeacherServer(str, answered(401, said)) as server, pytest.raises(UserError, match="answered 401") as caught:
        ask(server, key="${env:MY_VALUE}")
    assert "abcd" not in str(caught.value)
    assert "[secret]" in str(caught.value)


def test_no_proxy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with TeacherServer(str) as server:
        assert ask(server)["b3:0"].text == "word 0"


def test_whoever_stops_waits_for_nothing_under_way() -> None:
    hung_up: Queue[bool] = Queue()

    def silent(handler: BaseHTTPRequestHandler, number: int) -> bool:
        handler.connection.settimeout(20)
        handler.close_connection = True
        try:
            hung_up.put(handler.connection.recv(1) == b"")
        except TimeoutError:
            hung_up.put(False)
        return True

    limits = Limits(60.0, 0, at_once=2)
    with (
        TeacherServer(str, by_prompt({"1": silent})) as server,
        pytest.raises(KeyboardInterrupt),
        EndpointTeacher(server.url, "m", None, SAMPLING, limits, where="here") as teacher,
    ):
        for _ in teacher.answer(prompts(2), set()):
            while len(server.asked) < 2:
                time.sleep(0.01)
            raise KeyboardInterrupt
    assert hung_up.get(timeout=30)


@pytest.mark.parametrize("value", ["clé-of-mine", "k-123\r", "k-123\n", "k 123"])
def test_a_key_that_is_none_is_one_line(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", value)
    with TeacherServer(str) as server, pytest.raises(UserError, match=r"^here.api_key: the value of") as caught:
        ask(server, key="${env:A_KEY}")
    assert "123" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "key", "told"),
    [
        ("ftp://host/v1", None, "expected an address"),
        ("https://user:word@host/v1", None, "without a login"),
        ("https://host:0/v1", None, "expected an address"),
        ("https://host/v1?x=1", None, "expected an address"),
        ("https://bücher..x/v1", None, "expected an address"),
        ("https://xn--/v1", None, "expected an address"),
        ("https://host\n/v1", None, "expected an address"),
        ("http://host/v1", "${env:K}", "over https only"),
        ("https://host/v1", "word", "does not stand in the file"),
    ],
)
def test_addresses_and_keys_are_checked(url: str, key: str | None, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        EndpointTeacher(url, "m", key, SAMPLING, Limits(), where="here")
    assert "word" not in str(caught.value)


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with TeacherServer(str) as server:
        with pytest.raises(UserError, match="variable NO_SUCH_KEY of the environment is not set"):
            ask(server, key="${env:NO_SUCH_KEY}")
        monkeypatch.setenv("A_KEY", "k-123")
        ask(server, key="${env:A_KEY}")
        assert server.keys == {"Bearer k-123"}


def test_an_engine_says_the_same_when_it_goes_on(tiny_llama: Path) -> None:
    asked = [*prompts(19), Prompt("b3:long", ({"role": "user", "content": "word " * 500},), 1)]
    with BlockingEngine("transformers", tiny_llama, here=True) as engine:
        teacher = EngineTeacher(engine, ChatTokenizer.load(tiny_llama), SAMPLING)
        whole = {prompt.id: reply for prompt, reply in teacher.answer(asked, set())}
        rest = {prompt.id: reply for prompt, reply in teacher.answer(asked, {f"b3:{n}" for n in range(17)})}
    assert set(whole) == {prompt.id for prompt in asked}
    assert "more than the model's 512" in whole["b3:long"].refused
    assert len({reply.text for reply in whole.values()}) > 10
    assert set(rest) == {"b3:16", "b3:17", "b3:18", "b3:long"}
    assert all(whole[name] == reply for name, reply in rest.items())
    assert any(reply.cut for reply in whole.values())
