"""Several servers for one release, killed, stopped and started again while people ask."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from toy_server import serve_toy
from toy_upstream import DIGEST, Front, Misbehaving, fronting, piece, reply, stream, write_folder

from treadle.serve.guardrail import NO_GUARDRAILS, Guardrails, Named
from treadle.serve.guards import PersonalData

HERE = Path(__file__).parent
QUICK = {"failures": 2, "window": 30, "pause": 0.5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model")


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class Process:
    """A server of ours in a process of its own."""

    def __init__(self, port: int = 0) -> None:
        command = [sys.executable, str(HERE / "toy_process.py"), str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2])

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def processes(count: int) -> Iterator[list[Process]]:
    made = [Process() for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            each.end()


def places(front: Front) -> list[str]:
    return [row["upstream"]["place"] for row in front.rows if row["upstream"]]


def closed_port() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}/v1"


def test_requests_are_shared_in_turn_or_by_who_has_fewest(folder: Path) -> None:
    with serve_toy() as one, serve_toy() as two:
        urls = (f"{one.url}/v1", f"{two.url}/v1")
        with fronting(folder, *urls, spread="round_robin") as front:
            for _ in range(6):
                front.chat()
            assert (len(one.rows), len(two.rows)) == (3, 3)
        one.engine.pace = 1.0
        with fronting(folder, *urls) as front, ThreadPoolExecutor(4) as pool:
            slow = [pool.submit(front.chat, "one two three four five") for _ in range(2)]
            until(lambda: one.engine.running >= 1)
            before = len(two.rows)
            for _ in range(5):
                front.chat("quick")
            assert len(two.rows) - before >= 5
            one.engine.pace = 0.0
            assert all(each.result().status_code == 200 for each in slow)


def test_a_server_that_is_not_there_costs_no_request(folder: Path) -> None:
    with serve_toy() as behind:
        rules = QUICK | {"pause": 60}
        with fronting(folder, closed_port(), f"{behind.url}/v1", breaker=rules, spread="round_robin") as front:
            assert [front.chat().status_code for _ in range(8)] == [200] * 8
            assert {row["upstream"]["attempts"] for row in front.rows} == {1, 2}
            assert front.breakers() == ["open", "closed"]
            away = front.engine.upstreams()[0]
            assert away.outcomes == {"failed": 2}  # and then it was left alone
            said = front.http.get("/metrics").text
            named = f'release="front@v3",upstream="{away.place}"}}'
            assert f'treadle_upstream_open{{digest="{DIGEST}",{named} 1.0' in said
            assert f'outcome="failed",{named} 2.0' in said


@pytest.mark.parametrize("status", [500, 429, 404])
def test_whoever_cannot_answer_is_passed_over(status: int, folder: Path) -> None:
    with (
        Misbehaving(lambda h: reply(h, status, {}, Retry_After="30")) as bad,
        serve_toy() as behind,
        fronting(folder, bad.url, f"{behind.url}/v1", spread="round_robin") as front,
    ):
        assert [front.chat(stream=bool(number % 2)).status_code for number in range(6)] == [200] * 6
        assert len(bad.asked) == (1 if status == 429 else 5)  # then it is left alone


def test_what_was_refused_for_the_request_s_sake_is_asked_nowhere_else(folder: Path) -> None:
    with (
        Misbehaving(lambda h: reply(h, 400, {})) as first,
        Misbehaving(lambda h: reply(h, 400, {})) as second,
        fronting(folder, first.url, second.url) as front,
    ):
        assert front.chat().status_code == 400
        assert len(first.asked) + len(second.asked) == 1


def test_nothing_is_asked_again_once_something_was_streamed(folder: Path) -> None:
    def broken(handler: BaseHTTPRequestHandler) -> None:
        stream(handler, piece("one"), done=False)

    with (
        Misbehaving(broken) as bad,
        serve_toy() as behind,
        fronting(folder, bad.url, f"{behind.url}/v1", spread="round_robin") as front,
    ):
        answer = front.chat(stream=True)
        assert answer.status_code == 200
        assert '"content":"one"' in answer.text
        assert "upstream_garbled" in answer.text
        assert "[DONE]" not in answer.text
        assert not behind.rows
        (row,) = front.rows
        assert (row["status"], row["error"], row["answer"]) == ("failed", "upstream_garbled", "one")


def test_an_answer_that_nobody_saw_the_beginning_of_is_begun_anew(folder: Path) -> None:
    def broken(handler: BaseHTTPRequestHandler) -> None:
        logprobs = {"content": [{"logprob": -9.0}]}
        said = [piece(word, choice={"logprobs": logprobs}) for word in ("wrong", " me@here.org")]
        stream(handler, *said, done=False)

    def fine(handler: BaseHTTPRequestHandler) -> None:
        logprobs = {"content": [{"logprob": -1.0}]}
        said = [piece(word, choice={"logprobs": logprobs}) for word in ("all", " is", " fine")]
        stream(handler, *said, piece(reason="stop"))

    guards = Guardrails(outward=(Named("personal_data", PersonalData()),))
    for more, screens in (({"logprobs": True}, NO_GUARDRAILS), ({}, guards), ({"n": 2}, NO_GUARDRAILS)):
        with (
            Misbehaving(broken) as bad,
            Misbehaving(fine) as good,
            fronting(folder, bad.url, good.url, spread="round_robin", guardrails=screens) as front,
        ):
            found = front.chat(**more).json()
            assert {each["message"]["content"] for each in found["choices"]} == {"all is fine"}
            if "logprobs" in more:
                assert [each["logprob"] for each in found["choices"][0]["logprobs"]["content"]] == [-1.0] * 3
            (row,) = front.rows
            assert (row["status"], row["answer"], row["guardrails"]) == ("ok", "all is fine", [])
            assert row["tokens"]["completion"] == 3 * len(found["choices"])


def test_one_that_fails_and_comes_round_is_asked_again_after_a_pause(folder: Path) -> None:
    failures = iter([500, 503])

    def moody(handler: BaseHTTPRequestHandler) -> None:
        status = next(failures, 200)
        if status == 200:
            stream(handler, piece("fine"), piece(reason="stop"))
        else:
            reply(handler, status, {})

    with Misbehaving(moody) as behind, fronting(folder, behind.url, retries=2) as front:
        assert front.chat().status_code == 200
        assert front.rows[0]["upstream"]["attempts"] == 3


def test_a_breaker_lets_one_request_try_and_closes_when_it_is_answered(folder: Path) -> None:
    with serve_toy() as behind:
        url = f"{behind.url}/v1"
        with fronting(folder, url, breaker=QUICK, retries=0) as front:
            behind.gateway.draining = True  # it answers 503
            assert [front.chat().status_code for _ in range(2)] == [503] * 2
            assert front.breakers() == ["open"]
            asked = behind.engine.requests
            found = front.chat()
            assert found.json()["error"]["code"] == "upstream_unavailable"
            assert found.headers["retry-after"] == "1"
            behind.gateway.draining = False
            assert front.chat().status_code == 503  # before its time
            assert not asked
            time.sleep(0.6)
            assert front.breakers() == ["half_open"]
            with ThreadPoolExecutor(4) as pool:
                behind.engine.pace = 0.2
                found_all = [each.status_code for each in pool.map(lambda _: front.chat(), range(4))]
            assert sorted(found_all) == [200, 503, 503, 503]
            assert front.breakers() == ["closed"]
            assert front.chat().status_code == 200


def test_servers_killed_and_stopped_under_load_lose_nothing(folder: Path) -> None:
    with processes(2) as (one, two):
        urls = (f"{one.url}/v1", f"{two.url}/v1")
        with (
            fronting(folder, *urls, model="docs", breaker=QUICK, silence=1.0, retries=3) as front,
            ThreadPoolExecutor(6) as pool,
        ):
            stop = time.monotonic() + 6

            def ask(number: int) -> list[Any]:
                found = []
                while time.monotonic() < stop:
                    found.append(front.chat(f"one two {number}"))
                return found

            asking = [pool.submit(ask, number) for number in range(6)]
            time.sleep(0.7)
            one.signal(signal.SIGSTOP)  # it hangs
            time.sleep(1.5)
            one.signal(signal.SIGCONT)
            time.sleep(0.7)
            two.end()
            time.sleep(0.7)
            again = Process(two.port)
            try:
                answers = [each for asked in asking for each in asked.result()]
                until(lambda: front.chat().status_code == 200 and front.breakers() == ["closed", "closed"])
            finally:
                again.end()
        assert {each.status_code for each in answers} == {200}
        for each in answers:
            assert each.json()["choices"][0]["message"]["content"].startswith("one two ")
        assert len(answers) > 50
        assert set(places(front)) == {url.removeprefix("http://").removesuffix("/v1") for url in urls}
