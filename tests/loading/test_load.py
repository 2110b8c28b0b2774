"""`treadle load` against a real server: times from when a request was due, kinds of errors, a report."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from toy_server import serve_toy

from treadle.cli.main import main
from treadle.core.errors import UserError
from treadle.loading.client import Asked, Client, Target
from treadle.loading.response import BadResponse, Response
from treadle.loading.trace import read_trace, scaled, steady
from treadle.record.slo import Slo, parse_slo


def load(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main(["load", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_rate_with_an_objective_and_a_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with serve_toy(pace=0.001) as served:
        report = tmp_path / "load.html"
        limits = ("--slo", "ttft=20s,total=1m", "--at-least", "1")
        size = ("--prompt-tokens", "9", "--answer-tokens", "5")
        code, found = load(capsys, served.url, "--rate", "40", "--for", "1s", *limits, *size, "--out", str(report))
        assert (code, found["errors"], found["answered"]) == (0, {}, found["requests"])
        assert found["slo"]["met"] == found["requests"] > 20
        assert found["releases"] == {served.gateway.serving.release.digest: found["requests"]}
        rows = served.rows[2:]  # two asked how the server counts
        assert {row["tokens"]["prompt"] for row in rows} == {9}
        assert {row["tokens"]["completion"] for row in rows} == {5}
        assert found["answer_tokens"] == 5 * len(rows)
        assert all(row["answer"] is None and row["metadata"] is None for row in rows)  # store: false keeps no text
        page = report.read_text()
        assert "<svg" in page
        assert not re.search(r'(?:src|href)="(?!#|data:)', page)
        code, found = load(capsys, served.url, "--rate", "20", "--for", "1s", "--slo", "total=1ms", "--at-least", ".5")
        assert code == 1


def test_refusals_are_counted_and_a_replay_is_as_long_as_its_trace(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trace = tmp_path / "trace.csv.gz"
    lines = [f"2023-11-16 18:15:{46 + n / 1000:010.7f},{12 + n},{4 + n % 3}" for n in range(12)]
    trace.write_bytes(gzip.compress("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines, ""]).encode()))
    with serve_toy(pace=0.2, max_in_flight=3) as served:
        code, found = load(capsys, served.url, "--replay", str(trace))
        assert (code, found["answered"], found["refused"]) == (0, 3, 9)
        assert found["errors"] == {"429 queue_full": 9}
        assert [row["tokens"]["prompt"] for row in served.rows[2:]] == [12, 13, 14]
        code, found = load(capsys, served.url, "--replay", str(trace), "--times", "2")
        assert (code, found["requests"]) == (0, 24)
        code, found = load(capsys, served.url, "--rate", "1", "--times", "2")
        assert (code, "--replay and --plan" in found["error"]["message"]) == (2, True)


def test_a_server_that_reads_little_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("hi\n")
    with serve_toy(pace=0.001, context=60) as served:
        size = ("--rate", "20", "--for", "1s", "--answer-tokens", "4")
        code, found = load(capsys, served.url, *size, "--prompts", str(prompts))
        assert (code, found["errors"]) == (0, {})
        code, found = load(capsys, served.url, *size, "--prompt-tokens", "9")
        assert (code, found["errors"]) == (0, {})
        assert {row["tokens"]["prompt"] for row in served.rows[-5:]} == {9}
        code, found = load(capsys, served.url, *size, "--endpoint", "classify")
        said = found["error"]["message"]
        assert (code, said.startswith("the server refused a first request: 400 wrong_endpoint")) == (2, True), said


def test_a_number_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with serve_toy(release={"task": "classify", "asking": "classify"}, key="sesame") as served:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TREADLE_API_KEY", "sesame")
            code, found = load(capsys, served.url, "--concurrency", "3", "--for", "1s", "--endpoint", "classify")
        assert (code, found["errors"]) == (0, {})
        assert found["answered"] > 3
        code, found = load(capsys, served.url, "--rate", "1")
        assert (code, "401 invalid_api_key" in found["error"]["message"]) == (2, True)


@contextmanager
def talking(*answers: bytes | None) -> Iterator[str]:
    """A server that says these to one request each, on one connection; None: it hangs up instead."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            for answer in answers:
                if not connection.recv(1 << 16):
                    return
                if answer is None:
                    connection.close()
                    connection, _ = listening.accept()
                else:
                    connection.sendall(answer)
            connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(10)


def ask(url: str, count: int, apart: float = 0.1) -> list[Any]:
    async def run() -> list[Any]:
        client = Client(Target(url, "/v1/chat/completions"), keep_text=True, timeout=20)
        try:
            return await client.replay([Asked(n * apart, b"{}") for n in range(count)])
        finally:
            await client.close()

    return asyncio.run(run())


def test_time_counts_from_when_it_was_due_and_broken_streams_are_no_answers() -> None:
    stream = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    event = b'data: {"choices":[{"delta":{"content":"na\\u00efve"}}]}\n\n'
    whole = stream + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (event, b"data: [DONE]\n\n"))
    plain = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    with talking(whole + b"0\r\n\r\n", None, plain, stream + b"5\r\ndata:\r\n") as url:
        first, second, third = ask(url, 3)
    assert (first.error, first.text, first.answer_tokens) == (None, "naïve", 1)
    assert (second.error, second.first) == (None, None)  # asked again: the idle connection had ended
    assert third.error == "stream broke off"
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    assert [each.error for each in ask(url, 1)] == ["connection refused"]


def test_an_answer_in_any_pieces_is_the_same() -> None:
    event = b'data: {"choices":[{"delta":{"content":"one"}}],"system_fingerprint":"b3:ab"}\n\n'
    body = event + b"data: [DONE]\n\n"
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    data = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"%X;x=1\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    for size in (1, 2, 3, 7, 50, len(data)):
        response = Response()
        for start in range(0, len(data), size):
            response.feed(data[start : start + size], float(start))
        assert (response.done, response.problem(streamed=True)) == (True, None)
        assert (response.said(), response.release(), len(response.words)) == ("one", "b3:ab", 1)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5000 + b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1;" + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nabcdefgh",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1_0\r\nabcdefgh",
    ],
    ids=lambda data: repr(data[-8:]),
)
def test_an_answer_that_means_harm(data: bytes) -> None:
    with pytest.raises(BadResponse):
        Response().feed(data, 0.0)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "A,B\n1,2\n", ":1: no column TIMESTAMP"),
        ("a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,2\n", ":2: expected a time"),
        ("a.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16,-4,2\n", ":2: expected a number of tokens"),
        ("a.jsonl", "[" * 100_000, ":1: no JSON"),
        ("a.jsonl", '{"at": 1}', ":1: none of prompt_tokens"),
        ("a.jsonl", '{"at": NaN, "prompt": "x", "answer_tokens": 2}', ":1: at: expected a number"),
        ("a.jsonl", "\n", "no request in it"),
        ("a.jsonl.gz", "no gzip", "expected a trace"),
    ],
)
def test_a_bad_trace_is_one_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        read_trace(tmp_path / name)


def test_traces_are_put_in_order_and_scaled(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 3000, "input_length": 900, "output_length": 5},
        {"timestamp": 1000, "prompt": "Why?", "answer_tokens": 0},
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    trace = read_trace(tmp_path / "t.jsonl")
    assert [(each.at, each.prompt, each.answer, each.text) for each in trace] == [(0, 1, 1, "Why?"), (2, 900, 5, None)]
    assert [(e.at, e.prompt) for e in scaled(trace, speed=4, seconds=9, prompt=50, answer=None)] == [(0, 1), (0.5, 50)]
    made = steady(50, 100, prompt=1, answer=1, seed=3)
    assert made == steady(50, 100, prompt=1, answer=1, seed=3)
    assert 4700 < len(made) < 5300


def test_an_objective() -> None:
    slo = parse_slo("ttft=500ms, per_token=0.1s,total=1m")
    assert slo.given() == {"ttft": 0.5, "per_token": 0.1, "total": 60.0}
    assert slo.excess(0.25, 1.25, 6) == 2.0  # 0.2 a token
    assert Slo().excess(9, 9, 9) == 0
    for bad in ("", "ttft", "ttft=1", "ttft=0s", "ttft=1s,ttft=2s", "p99=1s"):
        with pytest.raises(UserError, match="--slo"):
            parse_slo(bad)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("http://127.0.0.1:9",), "expected one of --rate"),
        (("http://me:secret@h", "--rate", "1"), "without a login"),
        (("http://127.0.0.1:9", "--rate", "1", "--key", "sk-1"), "--key"),
        (("http://127.0.0.1:9", "--rate", "1", "--at-least", "1"), "needs --slo"),
        (("http://127.0.0.1:9", "--rate", "1", "--for", "soon"), "--for soon"),
        (("http://127.0.0.1:9", "--rate", "1", "--speed", "2"), "--speed: goes with --replay and --plan"),
        (("http://127.0.0.1:9", "--rate", "1"), "the server does not answer: connection refused; check the address"),
        (("http://127.0.0.1:9", "--rate", "1", "--out", "/no/such/a.html"), "no such folder"),
    ],
)
def test_bad_arguments_are_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str) -> None:
    code, found = load(capsys, *arguments)
    assert (code, said in found["error"]["message"]) == (2, True), found
