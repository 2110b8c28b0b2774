"""Another release answers what one cannot: whose answer it is, what is recorded, and what a key pays."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from toy_keys import Book, ask
from toy_table import ONE, TWO, tabled

from treadle.core.errors import UserError
from treadle.lm.engine import EngineGone
from treadle.record.api_key import Limit
from treadle.serve.guardrail import Found, Guardrails, Named
from treadle.serve.guards import BlockList
from treadle.serve.table import Table

GONE = EngineGone("the process ended")


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_champion_cannot_answer_another_release_does(stream: bool) -> None:
    with tabled(other={"system_prompt": "Be kind."}) as server:
        server.one.failing = GONE
        answer = server.chat(stream=stream, user="ann")
        assert answer.status_code == 200
        assert answer.headers["treadle-release"] == TWO
        assert TWO in answer.text
        assert ONE not in answer.text
        failed, answered = server.rows
        assert (failed["release"], failed["status"], failed["error"]) == (ONE, "failed", "engine_unavailable")
        assert (failed["share"], failed["tokens"]["prompt"]) == (1.0, 0)
        assert (answered["release"], answered["status"], answered["answer"]) == (TWO, "ok", "one two three")
        assert (answered["instead_of"], answered["share"]) == (failed["id"], None)
        assert answered["request"] == failed["request"]
        assert answered["id"] in answer.text
        assert "kind" in server.two.tokenizer.decode(server.two.requests[0].prompt_ids)  # by its own prompt
        assert server.metric('treadle_fallbacks_total{answered_by="docs@v2",release="docs@v1"}') == 1
        server.one.failing = None
        assert server.chat().headers["treadle-release"] == ONE


@pytest.mark.parametrize(("asking", "path"), [("classify", "classify"), ("embed", "embeddings"), ("tag", "tag")])
def test_texts_are_labeled_tagged_and_embedded_by_another(asking: str, path: str) -> None:
    with tabled(asking=asking) as server:
        server.one.failing = GONE
        answer = server.http.post(f"/v1/{path}", json={"input": ["good Bern"]})
        assert answer.status_code == 200
        assert answer.json()["system_fingerprint"] == TWO
        assert [(row["release"], row["status"]) for row in server.rows] == [(ONE, "failed"), (TWO, "ok")]
        assert server.rows[1]["instead_of"] == server.rows[0]["id"]


def test_a_contract_s_request_falls_back_as_well() -> None:
    with tabled() as server:
        server.one.failing = GONE
        for path, body in (
            ("/invocations", {"inputs": "one two"}),
            ("/predict", {"instances": ["one two"]}),
            ("/v1/models/docs:predict", {"instances": ["one two"]}),
        ):
            answer = server.http.post(path, json=body)
            assert answer.status_code == 200
            assert server.rows[-1]["release"] == TWO
            assert answer.headers["treadle-release"] == TWO  # what answered, not what was chosen
            assert ONE not in answer.text


def test_one_release_answers_all_instances_of_a_contract_s_request() -> None:
    with tabled() as server:
        server.one.failing, server.one.fail_times = GONE, 1
        answer = server.http.post("/predict", json={"instances": ["one two", "three four", "five six"]})
        assert answer.status_code == 200
        assert answer.headers["treadle-release"] == TWO
        assert [each.strip() for each in answer.json()["predictions"]] == ["one two", "three four", "five six"]
        shown = set(answer.headers["treadle-interaction"].split(","))
        assert {row["release"] for row in server.rows if row["id"] in shown} == {TWO}
        assert len(shown) == 3


def test_what_had_begun_to_be_streamed_is_not_begun_anew() -> None:
    with tabled() as server:
        server.one.failing, server.one.fail_after = GONE, 2
        answer = server.chat(stream=True)
        assert "engine_unavailable" in answer.text
        assert not server.of(TWO)
        assert server.chat().headers["treadle-release"] == TWO  # nobody saw what had come of it


def test_who_asks_for_a_release_by_name_gets_that_or_an_error() -> None:
    with tabled() as server:
        server.one.failing = GONE
        for name in ("docs@v1", ONE):
            answer = server.chat(model=name)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
        assert server.chat(model="docs").status_code == 200
        assert server.chat(model="docs@v2").status_code == 404  # it is nothing that can be asked for


def test_what_is_wrong_with_the_request_is_wrong_everywhere() -> None:
    words = Guardrails(inward=(Named("block_list", BlockList(words=["bomb"])),))
    with tabled(guardrails=words) as server:
        server.one.failing = UserError("not like this")
        assert server.chat().json()["error"]["code"] == "refused_by_model"
        server.one.failing = GONE
        assert server.chat("a bomb").json()["error"]["code"] == "content_filter"
        assert server.chat("word " * 500).json()["error"]["code"] == "context_length_exceeded"
        assert not server.of(TWO)


def test_where_both_fail_the_client_hears_of_the_last() -> None:
    with tabled() as server:
        server.one.failing, server.two.silent = GONE, True
        answer = server.chat()
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_failed")
        assert [row["error"] for row in server.rows] == ["engine_unavailable", "engine_failed"]


def test_another_kind_of_release_is_no_fallback() -> None:
    with tabled(other={"asking": "classify"}) as server:
        server.one.failing = GONE
        assert server.chat().status_code == 503


@pytest.mark.parametrize("written", [0, 2])
def test_a_key_pays_for_the_answer_it_gets_and_for_nothing_that_broke_off_before(tmp_path: Path, written: int) -> None:
    book = Book(tmp_path / "store")
    key, secret = book.create("somebody", Limit.parse("tokens", "1000/day"), Limit.parse("requests", "3/day"))
    with tabled(keys=book.use()) as server:
        server.one.failing, server.one.fail_after = GONE, written
        answers = [ask(server.url, secret) for _ in range(3)]
        assert [each.status_code for each in answers] == [200, 200, 200]
        assert {each.json()["system_fingerprint"] for each in answers} == {TWO}
        assert ask(server.url, secret).json()["error"]["code"] == "insufficient_quota"  # three answers, three requests
        assert [(row["release"], row["key"]) for row in server.rows] == [(ONE, key.id), (TWO, key.id)] * 3
        assert {row["answer"] for row in server.of(ONE)} == {"one two" if written else ""}  # it did write
    paid = sum(each.json()["usage"]["total_tokens"] for each in answers)
    assert [tokens_of(server.of(release)) for release in (ONE, TWO)] == [0, paid]
    assert (book.used(key).tokens, book.used(key).requests) == (paid, 3)
    book.close()


def test_a_key_pays_for_what_broke_off_where_nothing_answers_instead(tmp_path: Path) -> None:
    book = Book(tmp_path / "store")
    bound, secret = book.create("bound", models=("docs@v1",))
    either, other = book.create("either")
    with tabled(keys=book.use()) as server:
        server.one.failing, server.one.fail_after = GONE, 2
        assert ask(server.url, secret).status_code == 503  # it may not use the other model
        server.two.failing, server.two.fail_after = GONE, 1
        assert ask(server.url, other).status_code == 503
        first, voided, last = server.rows
    assert [row["tokens"]["completion"] for row in (first, voided, last)] == [2, 0, 1]
    assert (book.used(bound).tokens, book.used(bound).requests) == (tokens_of([first]), 1)
    assert (book.used(either).tokens, book.used(either).requests) == (tokens_of([last]), 1)
    book.close()


def test_results_that_do_not_fit_cost_nothing_where_another_release_answers(tmp_path: Path) -> None:
    book = Book(tmp_path / "store")
    key, secret = book.create("somebody", Limit.parse("requests", "3/day"))

    async def too_few(texts: Any) -> list[Any]:
        return []

    with tabled(keys=book.use(), asking="classify") as server:
        server.one.classify = too_few  # type: ignore[method-assign]
        headers = {"authorization": f"Bearer {secret}"}
        answer = server.http.post("/v1/classify", json={"input": ["good", "Bern"]}, headers=headers)
        assert answer.json()["system_fingerprint"] == TWO
        assert [row["error"] for row in server.rows] == ["engine_failed", None]
        assert tokens_of(server.of(ONE)) == 0 < tokens_of(server.of(TWO))
    assert (book.used(key).tokens, book.used(key).requests) == (tokens_of(server.of(TWO)), 1)
    book.close()


def tokens_of(rows: list[dict[str, Any]]) -> int:
    return sum(row["tokens"]["prompt"] + row["tokens"]["completion"] for row in rows)


def test_a_thousand_requests_lose_nothing_while_the_champion_comes_and_goes() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with tabled() as server, ThreadPoolExecutor(8) as pool:

        def one(number: int) -> dict[str, Any]:
            if number % 50 == 0:
                server.one.failing = GONE if (number // 50) % 2 else None
            answer = server.chat(f"a {number}", stream=bool(number % 2))
            assert answer.status_code == 200
            text = answer.text if number % 2 else json.dumps(answer.json())
            release = answer.headers["treadle-release"]
            assert release in text
            return {"id": answer.headers["treadle-interaction"], "release": release}

        answers = list(pool.map(one, range(1000)))
        rows = {row["id"]: row for row in server.rows}
        assert all(rows[each["id"]]["release"] == each["release"] for each in answers)
        assert {each["release"] for each in answers} == {ONE, TWO}
        failed = [row for row in server.rows if row["status"] == "failed"]
        assert len(rows) == 1000 + len(failed)
        assert sorted(row["instead_of"] for row in server.of(TWO)) == sorted(row["id"] for row in failed)


def test_more_instances_than_places_take_their_turns() -> None:
    with tabled(max_in_flight=4) as server:
        answer = server.http.post("/predict", json={"instances": [f"number {n}" for n in range(9)]})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["predictions"]) == 9


class Waits:
    """A guardrail that takes its time."""

    action: Literal["refuse"] = "refuse"
    reach = None

    def __init__(self) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()

    def find(self, _text: str, _before: int = 0) -> list[Found]:
        self.asked.set()
        self.go_on.wait(30)
        return []


def test_a_fallback_stays_open_while_its_guardrails_look_at_a_platform_s_request() -> None:
    """The request holds the champion's engine as well, for its other instances."""
    waits = Waits()
    with tabled() as server, ThreadPoolExecutor(1) as beside:
        champion, fallback = server.gateway.table.champion, server.gateway.table.fallback
        assert fallback is not None
        guarded = replace(fallback, guardrails=Guardrails(inward=(Named("waits", waits),)))
        server.gateway.first.table = Table(champion, fallback=guarded)
        server.one.failing = GONE
        text = f"{'w' * 200} " * 110  # looked at in a thread
        asking = beside.submit(server.http.post, "/predict", json={"instances": [text]})
        assert waits.asked.wait(30)

        async def withdraw() -> None:
            server.gateway.replace(Table(champion))
            for _ in range(20):
                await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(withdraw(), server.loop).result(30)
        assert not server.two.closed
        waits.go_on.set()
        assert asking.result(30).headers["treadle-release"] == TWO
        ends = time.monotonic() + 30
        while not server.two.closed:
            assert time.monotonic() < ends
            time.sleep(0.01)
