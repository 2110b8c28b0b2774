"""What is refused under too much load, and that the rest is in time: simulated, and over HTTP."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from test_following import until
from toy_engine import ToyEngine
from toy_server import Served

from treadle.lm.engine import Chunk, GenerateRequest
from treadle.record.slo import Slo
from treadle.serve.admission import Admission


def simulated(
    admission: Admission, *, rate: float, capacity: float, seconds: float, seed: int = 11
) -> list[tuple[float, float | None]]:
    """(arrival, seconds of the answer; None: refused) at a server that shares ``capacity`` answers a second among those
    in flight, each of a size by chance."""
    draw = random.Random(seed)
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


def test_below_capacity_nobody_is_refused() -> None:
    for seed in range(10):
        admission = Admission(256, Slo(total="4s"))
        simulated(admission, rate=80, capacity=40, seconds=60)  # finds out how many it can hold
        found = simulated(admission, rate=28, capacity=40, seconds=600, seed=seed)
        assert all(took is not None for _, took in found)


@pytest.mark.parametrize(("seconds", "room"), [(6.0, 51), (8.0, 49), (11.0, 35), (14.0, 8)])
def test_a_burst_goes_beyond_what_was_tried_where_that_would_be_in_time(seconds: float, room: int) -> None:
    admission = Admission(256, Slo(total="20s"))
    for number in range(500):  # never more than 33 ask
        admission.answered(number, number + seconds, None, 10, min(33, admission.limit))
    assert admission.limit == room


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


def hold(served: Served) -> threading.Event:
    """From now on the engine gives nothing before that is set."""
    let_go = threading.Event()

    class Held(ToyEngine):
        async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
            async for chunk in super().generate(request):
                while not let_go.is_set():
                    await asyncio.sleep(0.002)
                yield chunk

    served.engine.__class__ = Held
    return let_go


@contextmanager
def at_work(served: Served, count: int) -> Iterator[list[Future[httpx.Response]]]:
    """So many requests that the engine has, and holds until the block ends."""
    let_go = hold(served)
    with ThreadPoolExecutor(count) as pool:
        try:
            asked = [pool.submit(served.chat) for _ in range(count)]
            until(lambda: served.engine.running == count)
            yield asked
        finally:
            let_go.set()


@pytest.mark.parametrize(("limits", "room"), [({"max_in_flight": 3}, 3), ({"slo": Slo(total="10m")}, 8)])
def test_the_excess_is_refused_while_those_before_it_are_at_work(
    start: Callable[..., Served], limits: dict[str, Any], room: int
) -> None:
    served = start(**limits)
    with at_work(served, room) as asked:
        refused = [served.chat("unheard of") for _ in range(20)]
        assert not any(each.done() for each in asked)  # it waited for none of them
    assert {(each.status_code, each.json()["error"]["code"]) for each in refused} == {(429, "queue_full")}
    assert all(int(each.headers["retry-after"]) >= 1 for each in refused)
    assert [each.result().status_code for each in asked] == [200] * room
    assert len(served.engine.requests) == len(served.rows) == room
    assert not any("unheard" in word for word in served.engine.tokenizer.words)  # nor was its prompt looked at


def test_answers_that_come_late_leave_room_for_fewer(start: Callable[..., Served]) -> None:
    served = start(slo=Slo(total="1ms"), pace=0.002)  # a word takes longer than that
    assert served.gateway.admission.limit == 8
    assert [served.chat().status_code for _ in range(2)] == [200, 200]
    assert "treadle_in_flight_limit 1.0" in served.http.get("/metrics").text.splitlines()
    with at_work(served, 1) as asked:
        assert served.chat().status_code == 429
    assert asked[0].result().status_code == 200


def test_answers_in_time_leave_the_room_there_is(start: Callable[..., Served]) -> None:
    served = start(slo=Slo(total="10m"), pace=0.002)
    assert [served.chat().status_code for _ in range(10)] == [200] * 10
    assert served.gateway.admission.limit == 12  # the first eight, and half as many in a burst
