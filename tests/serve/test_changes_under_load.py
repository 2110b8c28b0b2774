"""Rollouts, rollbacks, SIGTERMs and killed engines while people ask: no request is lost, no answer is another's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_following import ONE, THREE, TWO, Orders, following, until
from toy_server import ListRecorder, redact
from toy_worker import EchoEngine

from tiny_models import write_tokenizer
from treadle.lm import engine_process
from treadle.loading.client import Answered, Client, Target
from treadle.record.deployment import Routing

PATH = "/v1/chat/completions"


def body(text: str, **more: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": text}], "stream": True} | more).encode()


class Load:
    """``at_once`` people who ask the servers, one of them and where it is going away the other, until it is left."""

    def __init__(self, urls: list[str], at_once: int, *, bodies: list[bytes]) -> None:
        self.urls = urls
        self.answers: list[tuple[int, Answered]] = []
        self._bodies = bodies
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(at_once)))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def good(self) -> int:
        return sum(each.error is None for _, each in self.answers)

    async def _run(self, at_once: int) -> None:
        clients = [Client(Target(url, PATH), keep_text=True, timeout=60) for url in self.urls]
        await asyncio.gather(*(self._person(clients, number) for number in range(at_once)))
        for client in clients:
            await client.close()

    async def _person(self, clients: list[Client], number: int) -> None:
        while not self._stop.is_set():
            number += 1
            which = number % len(self._bodies)
            answered = await clients[number % len(clients)].ask(self._bodies[which])
            # A server that ends says so, or is not there: as a load balancer would, the other one is asked.
            away = answered.error == "503 shutting_down" or not answered.status
            if away and len(clients) > 1:
                answered = await clients[(number + 1) % len(clients)].ask(self._bodies[which])
            self.answers.append((which, answered))
            if answered.error is not None:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("changes", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_rollouts_and_rollbacks_lose_nothing_and_every_answer_is_its_releases(changes: int) -> None:
    orders = Orders(pace=0.004)
    ways = [Routing(TWO), Routing(ONE), Routing(ONE, THREE, 0.5), Routing(THREE), Routing(TWO, ONE, 0.3)]
    with following(orders, keep_seconds=0.3) as server, Load([server.url], 6, bodies=[body("a b c d e f")]) as load:
        until(lambda: load.good() > 5)
        for number in range(changes):
            orders.routing = wanted = ways[number % len(ways)]
            until(lambda wanted=wanted: server.gateway.table.champion is not None  # type: ignore[misc]
                  and server.gateway.table.champion.release.digest == wanted.champion
                  and (server.gateway.table.canary is not None) == (wanted.canary is not None))  # fmt: skip
            before = load.good()
            until(lambda before=before: load.good() > before + 6)  # type: ignore[misc]
    answers = [each for _, each in load.answers]
    assert [each.error for each in answers if each.error is not None] == []
    assert {each.text for each in answers} <= {f"{mark}: a b c d e f" for mark in "123"}
    assert all(
        each.text is not None and each.release is not None and each.text[0] == each.release[3] for each in answers
    )
    rows = server.recorder.rows
    assert len(rows) == len(answers)
    assert all(row["answer"][0] == row["release"][3] and row["status"] == "ok" for row in rows)
    for release in (ONE, TWO, THREE):
        assert sum(row["release"] == release for row in rows) == sum(each.release == release for each in answers)


@contextlib.contextmanager
def process(port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    script = Path(__file__).with_name("toy_process.py")
    running = subprocess.Popen([sys.executable, str(script), str(port)], stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        yield running, running.stdout.readline().strip()
    finally:
        running.kill()
        running.communicate()


def end_amid_an_answer(running: subprocess.Popen[str], url: str) -> None:
    """SIGTERM to a server that is in the middle of an answer, which it cannot end before it knows of that."""
    with httpx.stream("POST", url + PATH, content=body("hold a b c"), timeout=30) as answer:
        events = answer.iter_lines()
        first = next(events)
        running.send_signal(signal.SIGTERM)
        told = [line.removeprefix("data: ") for line in [first, *events] if line]
    assert told[-1] == "[DONE]"
    pieces = [choice["delta"].get("content") or "" for each in told[:-1] for choice in json.loads(each)["choices"]]
    assert "".join(pieces) == "hold a b c"


def answers_of(running: subprocess.Popen[str]) -> int:
    """How many it gave until it ended: all that it had begun with."""
    assert running.wait(30) == 0
    assert running.stdout is not None
    counts = json.loads(running.stdout.readline())
    assert counts == {"begun": counts["begun"], "ok": counts["begun"]}
    return int(counts["ok"])


@pytest.mark.parametrize("ends", [1, pytest.param(100, marks=pytest.mark.slow)])
def test_sigterms_lose_nothing_where_there_is_another_server(ends: int) -> None:
    given = 0
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        stacks = [first, second]
        servers = [stack.enter_context(process()) for stack in stacks]
        urls = [url for _, url in servers]
        with Load(urls, 6, bodies=[body("a b c d e f g h i j")]) as load:
            until(lambda: load.good() > 10, 30)
            for number in range(ends):
                which = number % 2
                running, url = servers[which]
                end_amid_an_answer(running, url)
                given += answers_of(running)
                stacks[which].close()
                servers[which] = stacks[which].enter_context(process(int(url.rpartition(":")[2])))
                assert servers[which][1] == url
                before = load.good()
                until(lambda before=before: load.good() > before + 10)  # type: ignore[misc]
        for running, _ in servers:
            running.send_signal(signal.SIGTERM)
            given += answers_of(running)
    assert [each.error for _, each in load.answers if each.error is not None] == []
    assert given == len(load.answers) + ends  # so none was made that its client did not get, and asked for elsewhere
    assert {each.text for _, each in load.answers} == {"a b c d e f g h i j"}


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_an_engine_that_is_killed_again_and_again_gives_no_wrong_answer(
    tmp_path: Path, kills: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
    from treadle.serve.server import serving

    recorder = ListRecorder()
    made: list[Gateway] = []
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    # One that is lost again at once waits longer each time, up to five seconds; fifty of these need not be waited for.
    monkeypatch.setattr(engine_process, "_LONGEST_PAUSE", 0.5)
    write_tokenizer(folder := tmp_path / "model")
    (folder / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 4096}')

    async def build() -> Gateway:
        engine: Any = await EchoEngine.open(folder)
        release = ServedRelease("tiny@v1", ONE)
        served = Serving(release, engine, engine.tokenizer)
        made.append(Gateway(served, recorder, settings=GatewaySettings(api_key=None), redact=redact))
        return made[0]

    bodies = [body(f"Question {n}", temperature=0) for n in range(5)]
    with serving(build) as url:
        with Load([url], 1, bodies=bodies) as alone:
            until(lambda: alone.good() >= 5, 60)
        expected = {which: each.text for which, each in alone.answers}
        seconds = []
        with Load([url], 4, bodies=bodies) as load:
            for _ in range(kills):
                before = load.good()
                until(lambda before=before: load.good() > before + 4, 60)  # type: ignore[misc]
                pid = made[0].serving.engine.worker_pid  # type: ignore[attr-defined]
                os.kill(pid, signal.SIGKILL)
                killed, before = time.monotonic(), len(load.answers)
                until(lambda before=before, pid=pid: made[0].serving.engine.worker_pid != pid  # type: ignore[misc]
                      and any(each.error is None for _, each in load.answers[before + 4 :]), 60)  # fmt: skip
                seconds.append(time.monotonic() - killed)
    good = [(which, each) for which, each in load.answers if each.error is None]
    assert {(which, each.text) for which, each in good} <= set(expected.items())
    wrong = [each.error for _, each in load.answers if each.error is not None]
    assert set(wrong) <= {"503 engine_unavailable", "stream broke off: engine_unavailable"}
    assert sum(row["status"] == "ok" for row in recorder.rows) == len(good) + alone.good()
    with capsys.disabled():
        told = f"again after {max(seconds):.2f} s at most, {sum(seconds) / kills:.2f} on average"
        print(f"\n{kills} kills: {told}; {len(good)} answers, {len(wrong)} clean errors")  # noqa: T201 - to be seen
