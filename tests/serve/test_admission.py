"""What is refused under too much load, and that the rest is in time: simulated, and over HTTP."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from toy_engine import ToyEngine
from toy_server import Served

from treadle.lm.engine import Chunk, GenerateRequest
from treadle.loading.client import Asked, Client, Target
from treadle.record.slo import Slo
from treadle.serve.admission import Admission


def simulated(
    admission: Admission, *, rate: float, capacity: float, seconds: float
) -> list[tuple[float, float | None]]:
    """(arrival, seconds of the answer; None: refused) at a server that shares ``capacity`` answers a second among those
    in flight, each of a size by chance."""
    draw = random.Random(11)
    now, due, at_work, found = 0.0, 0.0, {}, []
    while now < seconds:
        speed = capacity / max(len(at_work), 1)
        ends = min(((left / speed, arrived) for arrived, left in at_work.items()), default=(float("inf"), 0.0))
        step = min(ends[0], due - now)
        at_work = {arrived: left - step * speed for arrived, left in at_work.items()}
        now += step
        if step < ends[0]:
            if len(at_work) < admission.limit:
                at_work[now] = draw.uniform(0.5, 1.5)
            else:
                found.append((now, None))
            due = now + draw.expovariate(rate)
        else:
            del at_work[ends[1]]
            found.append((ends[1], now - ends[1]))
            admission.answered(ends[1], now, None, 10, len(at_work) + 1)
    return found


@pytest.mark.parametrize("capacity", [4.0, 40.0])
def test_twice_the_capacity_is_half_refused_and_the_rest_in_time(capacity: float) -> None:
    found = simulated(Admission(256, Slo(total="2s")), rate=2 * capacity, capacity=capacity, seconds=600)
    settled = [took for arrived, took in found if arrived > 60]
    answered = [took for took in settled if took is not None]
    assert len(answered) / 540 > 0.9 * capacity
    assert sum(took > 2 for took in answered) / len(answered) < 0.02


def test_a_quiet_server_refuses_nobody_for_its_slow_answers() -> None:
    admission = Admission(256, Slo(total="2s"))
    for number in range(200):  # one in fifty is long, and takes long whatever the load
        long = number % 50 == 49
        admission.answered(number, number + (9.0 if long else 0.5), None, 180 if long else 10, 1)
    assert admission.limit == 8
    assert Admission(5).limit == 5
    assert Admission(5, Slo()).limit == 5


def test_a_large_machine_is_soon_found_out() -> None:
    admission = Admission(256, Slo(total="2s"))
    for number in range(600):
        admission.answered(number, number + 0.5, None, 10, admission.limit)
    assert admission.limit == 256


class Shared(ToyEngine):
    """So many tokens a second for all requests together."""

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        async for chunk in super().generate(request):
            yield chunk
            await asyncio.sleep(0.004 * self.running)


def test_over_http_the_excess_is_refused_before_any_work(start: Callable[..., Served]) -> None:
    served = start(slo=Slo(total="400ms"), max_in_flight=64)
    served.engine.__class__ = Shared
    body = {"messages": [{"role": "user", "content": "a b c d e f g h i j"}], "stream": True}

    async def run() -> list[Any]:
        import json

        client = Client(Target(served.url, "/v1/chat/completions"))
        try:
            return await client.replay([Asked(n / 50, json.dumps(body).encode()) for n in range(100)])
        finally:
            await client.close()

    answers = asyncio.run(run())
    refused = [each for each in answers if each.status == 429]
    assert {each.error for each in refused} == {"429 queue_full"}
    assert all((each.retry_after or 0) >= 1 for each in refused)
    assert len(refused) + sum(each.error is None for each in answers) == 100
    assert len(served.engine.requests) == 100 - len(refused)
    assert len(refused) > 10
    limit = served.gateway.admission.limit
    assert f"treadle_in_flight_limit {float(limit)}" in served.http.get("/metrics").text
