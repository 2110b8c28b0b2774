"""A request that is refused for what it says counts as one of its key's: nobody tries a guardrail for nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from toy_keys import CLIENT, Book, ask
from toy_server import Served, serve_toy

from treadle.core.errors import UserError
from treadle.record.api_key import Limit
from treadle.record.api_key_use import Used
from treadle.serve.guardrail import Guardrails, Named
from treadle.serve.guards import BlockList
from treadle.serve.release import Price

RAILS = Guardrails(inward=(Named("block_list", BlockList(words=["bomb"])),))


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    made = Book(tmp_path / "store")
    yield made
    made.close()


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def predict(served: Served, secret: str, instances: list[str]) -> Any:
    headers = {"authorization": f"Bearer {secret}"}
    return CLIENT.post(f"{served.url}/predict", json={"instances": instances}, headers=headers)


def wrong(served: Served, secret: str) -> list[tuple[int, str]]:
    """One request of each kind that is wrong in itself, and what came of it."""
    headers = {"authorization": f"Bearer {secret}"}
    answers = [
        ask(served.url, secret, text="a bomb"),
        ask(served.url, secret, text="a bomb", stream=True),
        ask(served.url, secret, text="w " * 500),
        ask(served.url, secret, model="nobody"),
        ask(served.url, secret, max_tokens=-1),
        CLIENT.post(f"{served.url}/v1/chat/completions", content=b"{", headers=headers),
        CLIENT.post(f"{served.url}/v1/classify", json={"input": "a"}, headers=headers),
        CLIENT.post(f"{served.url}/v1/embeddings", json={"input": ["a bomb"]}, headers=headers),
    ]
    platform = predict(served, secret, ["a bomb"])
    return [*(code(answer) for answer in answers), (platform.status_code, "")]


def test_each_counts_once_and_then_none_is_looked_at(book: Book) -> None:
    key, secret = book.create("one", Limit("requests", 11))
    free, unlimited = book.create("two")
    with serve_toy(keys=book.use(), guardrails=RAILS) as served:
        said = wrong(served, unlimited)
        assert [status for status, _ in said] == [400, 400, 400, 404, 400, 400, 400, 400, 400]
        assert wrong(served, secret) == said
        assert [ask(served.url, secret).status_code for _ in range(3)] == [200, 200, 429]
        rows = len(served.rows)
        assert {status for status, _ in wrong(served, secret)} == {429}
        assert len(served.rows) == rows  # no guardrail has looked at them
        assert len(served.engine.requests) == 2
    assert (book.used(key).requests, book.used(free).requests) == (11, 9)


def test_what_asks_no_model_costs_nothing(book: Book) -> None:
    key, secret = book.create("one", Limit("requests", 1))
    headers = {"authorization": f"Bearer {secret}"}
    with serve_toy(keys=book.use()) as served:
        for path in ("/v1/models", "/v1/models/nobody", "/metrics", "/v1/nothing"):
            CLIENT.get(served.url + path, headers=headers)
        assert CLIENT.post(f"{served.url}/v1/feedback", json={}, headers=headers).status_code == 400
        assert ask(served.url, "tk-" + "A" * 43).status_code == 401
        assert [ask(served.url, secret).status_code for _ in range(2)] == [200, 429]
        assert CLIENT.get(served.url + "/v1/models", headers=headers).status_code == 200
    assert book.used(key).requests == 1


@pytest.mark.parametrize("failing", [NotImplementedError(), UserError("it makes no vectors")])
@pytest.mark.parametrize(("asking", "rows"), [("chat", 0), ("embed", 1)])
def test_what_the_engine_refuses_costs_a_request_and_no_tokens(
    book: Book, failing: Exception, asking: str, rows: int
) -> None:
    key, secret = book.create("one", Limit("tokens", 1000))
    price = Price("EUR", prompt=5, completion=5)
    with serve_toy(keys=book.use(), release={"asking": asking, "price": price}) as served:
        served.engine.failing = failing
        body, headers = {"input": "a b c"}, {"authorization": f"Bearer {secret}"}
        said = code(CLIENT.post(f"{served.url}/v1/embeddings", json=body, headers=headers))
        assert said == (400, "wrong_endpoint")
        told = [(row["error"], row["tokens"]["prompt"]) for row in served.rows]
    assert told == [("wrong_endpoint", 0)] * (rows if isinstance(failing, UserError) else 0)
    assert book.used(key) == Used(requests=1)


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_that_the_engine_refuses_costs_a_request_and_no_tokens(book: Book, stream: bool) -> None:
    key, secret = book.create("one", Limit("tokens", 1000))
    with serve_toy(keys=book.use()) as served:
        served.engine.failing = UserError("response_format: it cannot hold an answer to that")
        assert code(ask(served.url, secret, stream=stream)) == (400, "refused_by_model")
        told = [(row["status"], row["tokens"]["prompt"]) for row in served.rows]
    assert told == [("failed", 0)]
    assert book.used(key) == Used(requests=1)


def test_instances_that_end_with_a_refused_one_cost_nothing(book: Book) -> None:
    key, secret = book.create("one", Limit("tokens", 1_000_000), Limit("requests", 100, "minute"))
    with serve_toy(keys=book.use(), guardrails=RAILS, pace=0.05) as served:
        paid = ask(served.url, secret).json()["usage"]["total_tokens"]  # and of its limits there is enough at hand
        assert code(predict(served, secret, ["one two three " * 9, "a bomb"])) == (400, "content_filter")
        assert [row["status"] for row in served.rows if row["tokens"]["prompt"]] == ["ok"]
    assert book.used(key) == Used(requests=2, tokens=paid)


def test_instances_beyond_what_is_left_of_a_rate_cost_nothing(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    key, secret = book.create("one", Limit("requests", 4, "minute"))
    use = book.use()
    monkeypatch.setattr(use._database, "clock", lambda: 1_735_689_600.0)  # a minute that does not end
    with serve_toy(keys=use, pace=0.05) as served:
        assert ask(served.url, secret).status_code == 200
        refused = predict(served, secret, ["one two three " * 9] * 4)
        assert code(refused) == (429, "rate_limit_exceeded")
        assert 30 < int(refused.headers["retry-after"]) <= 60  # the others were under way, and would count
        assert [row["status"] for row in served.rows if row["tokens"]["prompt"]] == ["ok"]
        assert predict(served, secret, ["one"] * 3).status_code == 200
    assert book.used(key).requests == 4


def test_more_instances_than_a_key_can_ever_have_are_told_so(book: Book) -> None:
    key, secret = book.create("one", Limit("requests", 4, "minute"))
    with serve_toy(keys=book.use()) as served:
        refused = predict(served, secret, ["one"] * 6)
        assert code(refused) == (400, "invalid_value")
        assert "6 came" in refused.json()["error"]["message"]
        assert "4 requests/minute" in refused.json()["error"]["message"]
        assert served.engine.requests == []
    assert book.used(key) == Used(requests=1)


def test_many_at_once_are_counted_exactly(book: Book) -> None:
    key, secret = book.create("one", Limit("requests", 40))
    with (
        serve_toy(keys=book.use(), guardrails=RAILS) as one,
        serve_toy(keys=book.use(), guardrails=RAILS) as two,
        ThreadPoolExecutor(16) as threads,
    ):

        def until_it_is_up(number: int) -> int:
            """Answers other than 429, until the key has nothing left."""
            found = 0
            while True:
                text = "a bomb" if number % 2 else "one two"
                answer = ask((one, two)[number % 4 // 2].url, secret, text=text, max_tokens=2)
                if answer.status_code == 429:
                    if answer.json()["error"]["code"] == "insufficient_quota":
                        return found
                    time.sleep(0.02)  # what the other has taken ahead comes back
                    continue
                assert answer.status_code == (400 if number % 2 else 200)
                found += 1

        assert sum(threads.map(until_it_is_up, range(16))) == 40
    assert book.used(key).requests == 40


def test_a_rate_holds_for_them(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    key, secret = book.create("one", Limit("requests", 3, "minute"))
    use = book.use()
    monkeypatch.setattr(use._database, "clock", lambda: 1_735_689_600.0)  # a minute that does not end
    with serve_toy(keys=use, guardrails=RAILS) as served:
        answers = [ask(served.url, secret, text="a bomb") for _ in range(4)]
        assert [code(answer)[1] for answer in answers] == ["content_filter"] * 3 + ["rate_limit_exceeded"]
        assert answers[2].headers["x-ratelimit-remaining-requests"] == "0"
        assert 1 <= int(answers[3].headers["retry-after"]) <= 60
    assert book.used(key).requests == 3
