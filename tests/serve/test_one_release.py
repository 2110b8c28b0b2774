"""A request of several instances is one request: one release answers it, whatever changes meanwhile."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from toy_engine import ToyEngine, ToyTokenizer
from toy_server import Served, serve_toy

from treadle.serve.gateway import ServedRelease, Serving
from treadle.serve.guardrail import NO_GUARDRAILS, Action, Found, Guardrails, Named
from treadle.serve.table import Table

CANARY = "b3:" + "cd" * 32


def canary(served: Served, share: float, guardrails: Guardrails = NO_GUARDRAILS) -> Table:
    tokenizer = ToyTokenizer()
    engine = ToyEngine(tokenizer, pace=served.engine.pace)
    made = Serving(ServedRelease("docs-assistant@v2", CANARY), engine, tokenizer, guardrails)
    return Table(served.gateway.serving, made, share)


def switch(served: Served, table: Table) -> None:
    """In the server's own loop, as a follower would."""
    done = asyncio.run_coroutine_threadsafe(_switch(served, table), served.loop)
    done.result(10)


async def _switch(served: Served, table: Table) -> None:
    served.gateway.replace(table)


def test_instances_of_one_request_come_from_one_release() -> None:
    with serve_toy() as served:
        switch(served, canary(served, 0.5))
        seen = set()
        for _ in range(12):
            answer = served.http.post("/predict", json={"instances": [f"q{i}" for i in range(12)]})
            assert answer.status_code == 200
            ids = answer.headers["treadle-interaction"].split(",")
            releases = {row["release"] for row in served.rows if row["id"] in ids}
            assert releases == {answer.headers["treadle-release"]}
            seen |= releases
        assert seen == {CANARY, served.gateway.serving.release.digest}


def test_a_canary_that_is_taken_back_answers_what_it_has_begun() -> None:
    with serve_toy(pace=0.01) as served:
        table = canary(served, 1.0)
        switch(served, table)
        body = {"instances": [f"{i} a b c d e f g h" for i in range(40)]}
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(served.http.post, "/predict", json=body)
            while served.gateway.in_flight < 8:
                pass
            switch(served, Table(table.champion))
            answer = asking.result()
        assert answer.status_code == 200
        assert {row["release"] for row in served.rows} == {CANARY}
        assert len(served.rows) == 40


def engine_of(table: Table) -> ToyEngine:
    assert table.canary is not None
    assert isinstance(table.canary.engine, ToyEngine)
    return table.canary.engine


class Slow:
    """Finds nothing, and takes its time for it."""

    action: Action = "refuse"
    reach: int | None = 0

    def find(self, text: str, before: int = 0) -> list[Found]:
        time.sleep(0.5)
        return []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/invocations"])
def test_a_request_that_is_still_looked_through_has_its_engine(path: str) -> None:
    with serve_toy(record="none") as served:
        table = canary(served, 1.0, Guardrails(inward=(Named("slow", Slow()),)))
        switch(served, table)
        body = {"messages": [{"role": "user", "content": "w" * 30_000}]}
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(served.http.post, path, json=body)
            time.sleep(0.2)
            switch(served, Table(table.champion))
            time.sleep(0.1)
            assert not engine_of(table).closed
            assert asking.result().status_code == 200
        for _ in range(100):
            time.sleep(0.02)
            if engine_of(table).closed:
                return
        raise AssertionError("the engine is still open")
