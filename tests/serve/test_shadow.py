"""Copies of requests for a release on trial: what becomes of them, and that nobody notices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_keys import Book, ask
from toy_table import ONE, TWO, tabled

from treadle.lm.engine import EngineGone
from treadle.record.api_key import Limit
from treadle.serve.guardrail import Guardrails, Named
from treadle.serve.guards import PersonalData
from treadle.serve.table import Table

ALL = {"share": 1.0}


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_a_copy_is_answered_by_the_other_release_and_recorded_as_such(stream: bool) -> None:
    with tabled(shadow=ALL, other={"system_prompt": "Be kind."}) as server:
        answer = server.chat(stream=stream, user="ann", temperature=0.5, seed=1, metadata={"a": "b"})
        assert answer.headers["treadle-release"] == ONE
        assert TWO not in answer.text
        until(lambda: len(server.rows) == 2)
        shown, copied = server.rows
        assert (shown["release"], shown["origin"], shown["copy_of"]) == (ONE, "traffic", None)
        assert (copied["release"], copied["origin"], copied["copy_of"]) == (TWO, "shadow", shown["id"])
        same = ("request", "endpoint", "messages", "user", "metadata", "parameters", "answer")
        assert {name: copied[name] for name in same} == {name: shown[name] for name in same}
        assert copied["share"] is None
        assert "kind" in server.two.tokenizer.decode(server.two.requests[0].prompt_ids)
        assert server.metric('treadle_shadow_requests_total{release="docs@v2",status="ok"}') == 1
        assert server.metric('treadle_answers_total{release="docs@v2",status="ok"}') == 0
        assert server.metric('treadle_answers_total{release="docs@v1",status="ok"}') == 1


@pytest.mark.parametrize(("asking", "path"), [("classify", "classify"), ("embed", "embeddings"), ("tag", "tag")])
def test_other_endpoints_are_copied_too(asking: str, path: str) -> None:
    with tabled(shadow=ALL, asking=asking) as server:
        assert server.http.post(f"/v1/{path}", json={"input": ["good Bern"]}).json()["system_fingerprint"] == ONE
        until(lambda: len(server.rows) == 2)
        assert (server.rows[1]["origin"], server.rows[1]["answer"]) == ("shadow", server.rows[0]["answer"])


@pytest.mark.parametrize(
    ("asking", "path", "body", "seen"),
    [
        ("classify", "classify", {"input": ["good jane@x.org"]}, ["good jane@x.org"]),
        ("embed", "embeddings", {"input": ["jane@x.org"]}, ["jane@x.org"]),
        ("chat", "score", {"text_1": ["a jane@x.org"], "text_2": ["b"]}, ["a jane@x.org", "b"]),
        ("chat", "rerank", {"query": "a", "documents": ["b", "jane@x.org"]}, ["a", "b", "jane@x.org"]),
    ],
)
def test_a_copy_has_what_was_sent_and_not_what_a_guardrail_of_the_champion_left(
    asking: str, path: str, body: dict[str, Any], seen: list[str]
) -> None:
    rails = Guardrails(inward=(Named("personal_data", PersonalData()),))
    with tabled(shadow=ALL, asking=asking, guardrails=rails, record="full") as server:
        assert server.http.post(f"/v1/{path}", json=body).status_code == 200
        until(lambda: len(server.rows) == 2)
    shown, copied = ([each["content"] for each in row["messages"]] for row in server.rows)
    assert (shown, copied) == ([each.replace("jane@x.org", "[EMAIL]") for each in seen], seen)


def test_the_share_is_kept() -> None:
    with tabled(shadow={"share": 0.3, "waiting": 1000, "at_once": 8}) as server:
        for _ in range(400):
            server.chat("x")
        until(lambda: server.gateway.first.shadows.waiting + server.gateway.first.shadows.running == 0)
        assert abs(len(server.of(TWO)) - 120) < 6 * (400 * 0.3 * 0.7) ** 0.5


def test_what_keeps_no_text_failed_or_asks_for_the_shadow_itself_is_not_copied() -> None:
    with tabled(shadow=ALL) as server:
        server.chat(store=False)
        server.chat("word " * 500)
        server.one.failing = EngineGone("gone")
        server.chat()
        server.one.fail_after = 1
        server.chat(stream=True)
        assert server.chat(model="docs@v2").status_code == 404
        time.sleep(0.2)
        assert not server.two.requests


def test_a_key_pays_for_its_own_answers_only(tmp_path: Path) -> None:
    book = Book(tmp_path / "store")
    key, secret = book.create("somebody", Limit.parse("tokens", "1000/day"), Limit.parse("requests", "20/day"))
    with tabled(shadow=ALL | {"waiting": 1000}, keys=book.use()) as server:
        for _ in range(20):
            assert ask(server.url, secret).status_code == 200
        assert ask(server.url, secret).status_code == 429
        until(lambda: len(server.of(TWO)) == 20)
        assert {row["key"] for row in server.of(TWO)} == {None}
        assert {row["cost"] for row in server.of(TWO)} == {None}
    spent = sum(row["tokens"]["prompt"] + row["tokens"]["completion"] for row in server.of(ONE))
    assert (book.used(key).tokens, book.used(key).requests) == (spent, 20)
    book.close()


def test_a_slow_shadow_holds_nobody_up_and_what_is_too_much_is_dropped_and_counted() -> None:
    with tabled(shadow=ALL | {"waiting": 3, "at_once": 2}, max_in_flight=2) as server:
        server.two.pace = 0.3
        begun = time.monotonic()
        for _ in range(20):
            assert server.chat("one two three").status_code == 200
        assert time.monotonic() - begun < 2
        assert server.gateway.first.shadows.waiting <= 3
        assert server.two.running <= 2
        assert server.metric('treadle_shadow_requests_total{release="docs@v2",status="dropped"}') == 15
        until(lambda: len(server.of(TWO)) == 5)


def test_bodies_that_wait_are_bounded_together() -> None:
    with tabled(shadow=ALL | {"waiting": 1000, "at_once": 1}, max_body_bytes=12 << 20, record="none") as server:
        server.two.pace = 1.0
        text = "x" * (6 << 20)  # one word
        for _ in range(5):
            assert server.chat(text).status_code == 200
        # one is being answered, two of six megabytes wait
        assert server.metric('treadle_shadow_requests_total{release="docs@v2",status="dropped"}') == 2


def test_a_shadow_that_fails_is_its_own_affair() -> None:
    with tabled(shadow=ALL) as server:
        for number, failure in enumerate((EngineGone("gone"), RuntimeError("what is this"), None), 1):
            server.two.failing, server.two.silent = failure, failure is None
            assert server.chat().status_code == 200
            until(lambda number=number: len(server.of(TWO)) == number)
        errors = {row["error"] for row in server.of(TWO)}
        assert errors == {"engine_unavailable", "internal_error", "engine_failed"}
        assert {row["status"] for row in server.of(ONE)} == {"ok"}
        assert server.metric('treadle_shadow_requests_total{release="docs@v2",status="failed"}') == 3


def test_a_copy_that_takes_too_long_is_given_up() -> None:
    with tabled(shadow=ALL, request_seconds=0.5) as server:
        server.two.pace = 0.4
        assert server.chat().status_code == 200
        until(lambda: bool(server.of(TWO)))
        assert server.of(TWO)[0]["error"] == "timeout"


def test_a_shadow_that_is_taken_away_ends_with_its_copies() -> None:
    with tabled(shadow=ALL | {"waiting": 50}) as server:
        server.two.pace = 0.5
        for _ in range(6):
            server.chat()
        loop = next(iter(server.gateway.first.shadows._running)).get_loop()

        async def away() -> None:
            server.gateway.replace(Table(server.gateway.table.champion))

        asyncio.run_coroutine_threadsafe(away(), loop).result()
        until(lambda: server.two.closed)
        assert server.two.running == 0
        assert server.gateway.first.shadows.waiting == 0
        assert server.metric('treadle_shadow_requests_total{release="docs@v2",status="dropped"}') >= 4
        assert server.chat().status_code == 200


def test_a_server_that_ends_does_not_wait_for_copies() -> None:
    with tabled(shadow=ALL) as server:
        server.two.pace = 30
        server.chat()
        until(lambda: server.two.running == 1)
        begun = time.monotonic()
    assert time.monotonic() - begun < 3
    assert server.two.closed
