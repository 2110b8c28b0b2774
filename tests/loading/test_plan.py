"""A plan: the simulation against what can be said without one, and against a real replay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from toy_engine import ToyEngine
from toy_server import serve_toy

from treadle.cli.load_plan import lines
from treadle.cli.main import main
from treadle.core.errors import UserError
from treadle.lm.engine import Chunk, GenerateRequest
from treadle.loading.client import Client, Target
from treadle.loading.curve import Curve, Level, measure
from treadle.loading.plan import plan, simulate
from treadle.loading.trace import Arrival, busier, steady
from treadle.record.slo import Slo

COUNTED = {"stream_options": {"include_usage": True}}
FLAT = Curve([Level(1, 10.0, 0.1, 0.01, 100.0)])  # a hundred tokens a second for all together


def test_one_alone_takes_what_was_measured() -> None:
    found = simulate(FLAT, [Arrival(float(n * 10), 10, 101) for n in range(5)], 1, Slo(total="1.2s"))
    assert found["ttft"]["max"] == pytest.approx(0.1)
    assert found["total"]["max"] == pytest.approx(1.1)
    assert found["share"] == 1


def test_two_at_once_take_twice_as_long_and_two_replicas_do_not() -> None:
    both = [Arrival(0.0, 10, 101), Arrival(0.0, 10, 101)]
    assert simulate(FLAT, both, 1, Slo())["total"]["max"] == pytest.approx(2.2)
    assert simulate(FLAT, both, 2, Slo())["total"]["max"] == pytest.approx(1.1)


def test_a_processor_that_is_shared_answers_as_queueing_theory_says() -> None:
    # M/G/1 with processor sharing: an answer takes its own time / (1 - load), whatever the sizes are spread like.
    own, load = 0.1 + 0.09, 0.6
    arrivals = steady(load / own, 6000, prompt=10, answer=10, seed=5)
    found = simulate(FLAT, arrivals, 1, Slo())
    assert found["total"]["mean"] == pytest.approx(own / (1 - load), rel=0.08)


def test_the_plan_is_the_fewest_that_keep_it() -> None:
    arrivals = steady(20, 15, prompt=10, answer=10, seed=2)  # 3.8 replicas' work
    slo = Slo(total="1s")
    found = plan(FLAT, arrivals, slo, 0.99)
    assert (found.cells, found.arrivals, found.replicas) == (1, arrivals, found.simulated["replicas"])
    assert found.simulated["share"] >= 0.99
    assert simulate(FLAT, arrivals, found.replicas - 1, slo)["share"] < 0.99
    assert simulate(FLAT, arrivals, found.replicas - 1, slo, enough=0.99)["share"] < 0.99
    assert 4 < found.replicas < 9
    assert len(found.one_replica()) == -(-len(arrivals) // found.replicas)
    with pytest.raises(UserError, match="no number of replicas"):
        plan(FLAT, arrivals, Slo(total="100ms"), 0.99)


def test_ten_thousand_requests_a_second_are_dealt_to_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.loading.plan._CELL", 3_000)
    arrivals = steady(10, 60, prompt=10, answer=10, seed=2)
    slo = Slo(total="1s")
    found = plan(FLAT, arrivals, slo, 0.99, times=1_000)
    assert found.cells == -(-len(arrivals) * 1_000 // 3_000)
    assert len(found.arrivals) == pytest.approx(3_000, rel=0.01)
    assert found.public()["requests_per_second"] == pytest.approx(len(arrivals) / 60 * 1_000, rel=0.02)
    work = found.public()["requests_per_second"] * 0.19  # replicas that would be busy all the time
    assert work < found.replicas < 1.6 * work
    told, *_ = lines(found.public() | {"slo": slo.given()})
    assert told.startswith(f"{found.replicas:,} replicas in {found.cells} cells for ")
    assert told.endswith("of the requests keep total 1 s")
    pooled = plan(FLAT, busier(arrivals, 5), slo, 0.99, times=1)  # one pool of five times as many
    assert pooled.replicas < 5 * plan(FLAT, arrivals, slo, 0.99).replicas


def test_a_busier_trace_keeps_its_shape() -> None:
    quiet, loud = (steady(rate, 300, prompt=9, answer=9, seed=3) for rate in (1, 8))
    trace = quiet + [Arrival(each.at + 300, 9, 9) for each in loud]
    more = busier(trace, 4.5)
    assert len(more) == pytest.approx(4.5 * len(trace), abs=1)
    assert [each.at for each in more] == sorted(each.at for each in more)
    early = sum(each.at < 270 for each in more)
    assert early == pytest.approx(4.5 * sum(each.at < 270 for each in trace), rel=0.15)
    assert len(busier(trace, 0.25)) == round(len(trace) / 4)
    assert set(busier(trace, 0.25)) <= set(trace)
    assert busier(trace, 1) == trace
    with pytest.raises(UserError, match="at most 5,000,000"):
        busier(trace, 1e5)


class Paced(ToyEngine):
    """The more are under way, the slower each: 5 ms a token, and 2 more for each other one."""

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        async for chunk in super().generate(request):
            yield chunk
            await asyncio.sleep(0.005 + 0.002 * (self.running - 1))


class Stopping(ToyEngine):
    """Goes on in steps, all that are under way together: in one it writes a token for each, 5 ms, unless prompts wait,
    which it reads first, all in one go, 40 ms."""

    turns: asyncio.Task[None] | None = None

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        if self.turns is None:
            self.waiting, self.step = list[asyncio.Event](), asyncio.Event()
            self.turns = asyncio.create_task(self._turn())
        read = asyncio.Event()
        self.waiting.append(read)
        await read.wait()
        async for chunk in super().generate(request):
            await self.step.wait()
            yield chunk

    async def _turn(self) -> None:
        while not self.closed:
            reading, self.waiting = self.waiting, []
            await asyncio.sleep(0.04 if reading else 0.005)
            for each in reading:
                each.set()
            if not reading:
                self.step.set()
                self.step = asyncio.Event()


def test_answers_are_held_up_by_each_others_prompts_while_the_pace_is_measured() -> None:
    body = {"messages": [{"role": "user", "content": "how long is this " * 10}], "stream": True, **COUNTED}

    async def measured(url: str) -> Curve:
        client = Client(Target(url, "/v1/chat/completions"))
        try:
            return await measure(
                client, lambda times: json.dumps(body | {"max_tokens": round(20 * times)}).encode(), 1.0
            )
        finally:
            await client.close()

    with serve_toy() as served:
        served.engine.__class__ = Stopping
        curve = asyncio.run(measured(served.url))
    one, eight = (next(level for level in curve.levels if level.at_once == number) for number in (1, 8))
    assert one.per_token == pytest.approx(0.005, rel=0.5)
    assert eight.per_token > 2.5 * one.per_token  # begun together they would all be written for at the pace of one


@pytest.mark.slow
def test_a_plan_is_checked_by_a_real_replay(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    rows = [
        {"at": each.at, "prompt_tokens": 20, "answer_tokens": 18} for each in steady(40, 20, prompt=1, answer=1, seed=1)
    ]
    trace.write_text("\n".join(map(json.dumps, rows)))
    with serve_toy() as served:
        served.engine.__class__ = Paced
        limits = ("--slo", "total=600ms", "--price", "0.5", "--check", "20s")
        code = main(["load", served.url, "--plan", str(trace), *limits, "--json"])
        found: Any = json.loads(capsys.readouterr().out)["plan"]
    assert code == 0
    assert [level["at_once"] for level in found["curve"]][:3] == [1, 2, 4]
    assert found["cost"]["per_hour"] == found["replicas"] * 0.5
    check = found["check"]
    assert check["errors"] == {}
    assert check["measured"]["share"] > 0.9
    assert check["planned"]["total"]["p50"] == pytest.approx(check["measured"]["total"]["p50"], rel=0.5)
