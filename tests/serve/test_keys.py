"""API keys: who is let in, what for, until when, and how much of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_prometheus import scrape
from toy_keys import CLIENT, Book, ask
from toy_server import Served, serve_toy

from postgresql_server import Server
from treadle.core.errors import UserError
from treadle.record.api_key import NANO, Limit
from treadle.record.api_key_use import Report, Share, period_of
from treadle.serve.gateway import Price
from treadle.serve.meter import Meter

HERE = Path(__file__).parent


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    made = Book(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture
def keyed(book: Book) -> Iterator[Served]:
    """A server of a project that has a key."""
    book.create("somebody")
    with serve_toy(keys=book.use()) as running:
        yield running


def until(holds: Callable[[], bool]) -> None:
    for _ in range(400):
        if holds():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen")


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_a_key_is_shown_once_and_kept_as_a_hash(book: Book) -> None:
    key, secret = book.create("billing", Limit.parse("tokens", "100/day"), scope=("chat",))
    assert secret.startswith("tk-")
    assert len(secret) == 46
    everything = b"".join(path.read_bytes() for path in book.workspace.root.rglob("*") if path.is_file())
    assert secret.encode() not in everything
    made, ended = book.workspace.ledger.last("key.created"), book.keys.revoke("billing", actor="k3:me")
    assert made is not None
    assert made.body["key"] == key.id == ended.id
    assert made.body["rules"]["limits"] == [{"what": "tokens", "most": 100, "per": "day"}]
    assert "billing" not in json.dumps(made.body)
    assert book.keys.revoke(key.id, actor="k3:me") == ended
    assert [row.body["key"] for row in book.workspace.ledger.rows("key.revoked")] == [key.id]
    assert book.create("billing")[0].id != key.id  # the name is free again


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("", {}, "letters, digits"),
        ("a b", {}, "letters, digits"),
        ("somebody", {"scope": ("chta",)}, "no such endpoint; did you mean 'chat'"),
        ("taken", {}, "revoke it first"),
        ("somebody", {"seconds": 0.0}, "such as 30d"),
    ],
)
def test_what_no_key_can_be(book: Book, name: str, options: dict[str, object], said: str) -> None:
    book.create("taken")
    with pytest.raises(UserError, match=said):
        book.create(name, **options)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="given twice"):
        book.create("twice", Limit("tokens", 1), Limit("tokens", 2))


@pytest.mark.parametrize("text", ["", "0", "-5", "1e9", "5/week", "1.5", "9" * 17, "5 /day"])
def test_what_no_limit_can_be(text: str) -> None:
    with pytest.raises(UserError, match="tokens"):
        Limit.parse("tokens", text)


def test_limits_as_people_write_them() -> None:
    assert Limit.parse("money", "2.50/month") == Limit("money", 5 * NANO // 2, "month")
    assert str(Limit.parse("money", "2.50/month")) == "2.5 money/month"
    assert period_of("month", 1_735_689_599.0) == ("m2024-12", 1.0)
    assert period_of("day", 1_735_689_599.5) == ("d2024-12-31", 0.5)


def test_a_project_without_keys_is_open_and_closes_with_the_first(book: Book) -> None:
    with serve_toy(keys=book.use()) as served:
        assert served.chat().status_code == 200
        key, secret = book.create("first")
        until(lambda: served.chat().status_code == 401)
        assert ask(served.url, secret).status_code == 200
        book.keys.revoke(key.id, actor="k3:me")
        until(lambda: ask(served.url, secret).status_code == 401)
        assert served.chat().status_code == 401  # and does not open again
        for path in ("/v1/models", "/metrics", "/v1/feedback"):
            assert CLIENT.get(served.url + path).status_code in (401, 405)
    assert [row["key"] for row in served.rows[-1:]] == [key.id]


def test_both_kinds_of_keys(book: Book) -> None:
    key, secret = book.create("one", models=("docs-assistant@v1",))
    with serve_toy(keys=book.use(), key="simple") as served:
        assert ask(served.url, "simple").status_code == 200
        assert ask(served.url, secret).status_code == 200
        assert code(ask(served.url, "tk-" + "A" * 43)) == (401, "invalid_api_key")
        assert code(CLIENT.get(f"{served.url}/metrics", headers={"authorization": f"Bearer {secret}"}))[0] == 403
        counts = scrape(served)
        assert counts["treadle_key_requests_total", (("key", key.id), ("status", "ok"))] == 1
        assert counts["treadle_key_tokens_total", (("key", "default"), ("kind", "prompt"))] == 5
    assert [row["key"] for row in served.rows] == ["default", key.id]
    assert book.used(key).requests == 1
    assert secret not in json.dumps(served.rows)


def test_a_projects_key_stays_itself_where_it_is_the_one_key_too(book: Book) -> None:
    key, secret = book.create("one", scope=("chat",))
    with serve_toy(keys=book.use(), key=secret) as served:
        assert CLIENT.get(f"{served.url}/metrics", headers={"authorization": f"Bearer {secret}"}).status_code == 403
        assert ask(served.url, secret).status_code == 200
        book.keys.revoke(key.id, actor="k3:me")
        until(lambda: ask(served.url, secret).status_code == 401)
    assert {row["key"] for row in served.rows} == {key.id}


def test_what_a_key_is_for(book: Book) -> None:
    _, vectors = book.create("vectors", scope=("embeddings", "metrics"))
    _, other = book.create("other", models=("another@v1",))
    with serve_toy(keys=book.use()) as served:
        assert code(ask(served.url, vectors)) == (403, "endpoint_not_allowed")
        headers = {"authorization": f"Bearer {vectors}"}
        assert CLIENT.post(f"{served.url}/v1/embeddings", json={"input": "a"}, headers=headers).status_code == 200
        assert CLIENT.get(f"{served.url}/metrics", headers=headers).status_code == 200
        assert CLIENT.get(f"{served.url}/v1/models", headers=headers).status_code == 403
        for model in ("docs-assistant", "docs-assistant@champion", "docs-assistant@v1", served.rows[0]["release"]):
            assert code(ask(served.url, other, model=model)) == (403, "model_not_allowed")
        assert CLIENT.get(f"{served.url}/v1/models", headers={"authorization": f"Bearer {other}"}).json()["data"] == []
    assert len(served.rows) == 1


def test_an_expired_key(book: Book) -> None:
    _, secret = book.create("brief", seconds=2.0)
    with serve_toy(keys=book.use()) as served:
        assert ask(served.url, secret).status_code == 200
        time.sleep(2.0)
        answer = ask(served.url, secret)
        assert code(answer) == (401, "invalid_api_key")
        assert "expired" in answer.json()["error"]["message"]


def test_a_key_that_is_revoked_in_the_middle_of_a_stream(book: Book) -> None:
    key, secret = book.create("brief")
    with serve_toy(keys=book.use(), pace=0.05) as served:
        body = {"messages": [{"role": "user", "content": "w " * 100}], "stream": True}
        headers = {"authorization": f"Bearer {secret}"}
        with httpx.stream("POST", f"{served.url}/v1/chat/completions", json=body, headers=headers, timeout=30) as got:
            lines = got.iter_lines()
            assert next(lines).startswith("data: ")
            book.keys.revoke("brief", actor="k3:me")
            last = [line for line in lines if line][-1]
        assert '"code":"invalid_api_key"' in last
    [row] = served.rows
    assert (row["status"], row["error"], row["key"]) == ("cancelled", "invalid_api_key", key.id)
    assert 0 < row["tokens"]["completion"] < 100
    assert book.used(key).tokens == row["tokens"]["prompt"] + row["tokens"]["completion"]


class Away:
    """A database that cannot be asked."""

    def clock(self) -> float:
        raise UserError("the database is away")


def test_keys_that_cannot_be_looked_up_let_nobody_in(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    _, secret = book.create("one", Limit("tokens", 10_000))
    use = book.use()
    with serve_toy(keys=use) as served:
        assert ask(served.url, secret).status_code == 200

        def away(*_: object) -> None:
            raise UserError("the database is away")

        monkeypatch.setattr(use, "stamp", away)
        monkeypatch.setattr("treadle.serve.keyring._STALE", 0.0)
        assert code(ask(served.url, secret)) == (503, "keys_unavailable")
        assert ask(served.url, None).status_code == 401
        monkeypatch.setattr("treadle.serve.keyring._STALE", 1e9)
        monkeypatch.setattr(use, "_database", Away())
        until(lambda: ask(served.url, secret, text="w " * 100).status_code == 503)
        assert code(ask(served.url, secret, text="w " * 100)) == (503, "budget_unavailable")
        monkeypatch.undo()
        until(lambda: ask(served.url, secret).status_code == 200)


def test_money(book: Book) -> None:
    key, secret = book.create("payer", Limit.parse("money", "0.00005"))
    with serve_toy(keys=book.use()) as free:
        assert code(ask(free.url, secret)) == (403, "no_price")
    price = Price("EUR", prompt=1.0, completion=2.0)
    with serve_toy(keys=book.use(), release={"price": price}) as served:
        while (answer := ask(served.url, secret)).status_code == 200:
            pass
        assert code(answer) == (429, "insufficient_quota")
        assert "retry-after" not in answer.headers
        assert answer.headers["x-should-retry"] == "false"
    amounts = [row["cost"]["amount"] for row in served.rows]
    assert 0.00005 <= sum(amounts) < 0.00005 + max(amounts)
    assert book.used(key).money == round(sum(amounts) * NANO)


def test_rates_and_what_is_said_of_them(book: Book) -> None:
    key, secret = book.create("quick", Limit("requests", 3, "minute"), Limit("tokens", 1000, "minute"))
    with serve_toy(keys=book.use()) as served:
        while period_of("minute", time.time())[1] < 5:  # type: ignore[operator] # not over a minute's end
            time.sleep(0.2)
        good = [ask(served.url, secret) for _ in range(3)]
        assert [answer.status_code for answer in good] == [200] * 3
        assert good[0].headers["x-ratelimit-limit-requests"] == "3"
        assert good[2].headers["x-ratelimit-remaining-requests"] == "0"
        assert good[0].headers["x-ratelimit-limit-tokens"] == "1000"
        refused = ask(served.url, secret)
        assert code(refused) == (429, "rate_limit_exceeded")
        assert refused.json()["error"]["type"] == "requests"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert book.used(key).requests == 3


def test_texts_without_a_tokenizer_cost_a_budget_too(book: Book) -> None:
    _, secret = book.create("vectors", Limit("tokens", 40))
    with serve_toy(keys=book.use()) as served:
        headers = {"authorization": f"Bearer {secret}"}
        put = lambda: CLIENT.post(f"{served.url}/v1/embeddings", json={"input": ["a b c d"]}, headers=headers)  # noqa: E731
        answers = [put() for _ in range(11)]
        assert [answer.status_code for answer in answers] == [200] * 10 + [429]


def test_what_a_dead_gateway_held_counts_as_spent(book: Book) -> None:
    key, _ = book.create("one", Limit("tokens", 1000))
    limits = key.rules.limits
    dead, living = book.use(), book.use()
    dead.begin()
    [share] = dead.exchange(key.id, Report(1), limits, {"tokens": 100})
    assert share.granted == 125
    again = Report(2, {("tokens", ""): 30}, {("tokens", ""): 95})
    for _ in range(2):  # nobody knew whether it had arrived
        dead.exchange(key.id, again, limits, {})
    [share] = living.exchange(key.id, Report(1), limits, {})
    assert (share.spent, share.left) == (30, 875)
    book.workspace.state._write("UPDATE leases SET pid = 2147480000 WHERE name = ?", ("gateway:" + dead.holder,))
    living.begin()
    [share] = living.exchange(key.id, Report(2), limits, {})
    assert (share.spent, share.left) == (125, 875)


def test_a_busy_key_asks_less_and_less_often_and_a_small_budget_is_not_held(book: Book) -> None:
    key, _ = book.create("one", Limit("requests", 1_000_000))
    use = book.use()
    asked: list[int] = []

    def exchange(*given: Any) -> list[Share]:
        asked.append(given[-1])
        return use.exchange(*given)

    async def work(meter: Meter) -> None:
        for _ in range(3000):
            meter.settle(await meter.reserve(1, 0), 1, 0)

    asyncio.run(work(Meter(key, exchange)))
    assert asked == [32, 64, 128, 256, 512, 1024, 1024]
    small, _ = book.create("two", Limit("requests", 80))
    [share] = use.exchange(small.id, Report(1), small.rules.limits, {"requests": 1}, 1024)
    assert share.granted == 10


def test_a_client_that_leaves_while_a_budget_is_asked_for_leaves_nothing_held(book: Book) -> None:
    key, _ = book.create("one", Limit("tokens", 1000))
    use = book.use()

    async def leave() -> Meter:
        meter = Meter(key, use.exchange)
        asking = asyncio.create_task(meter.reserve(100, 0))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        got = await meter.reserve(900, 0)
        meter.settle(got, 1000, 0)
        await meter.report(last=True)
        return meter

    asyncio.run(leave())
    rows = book.workspace.database.query("SELECT spent, held FROM api_key_use WHERE what = 'tokens'")
    assert rows == [(1000, 0)]


# -- exact under load


async def spend(urls: list[str], secret: str, clients: int = 64) -> list[int]:
    """Tokens of each answer that many clients at once got until the budget was used up."""
    spent: list[int] = []

    async def client(number: int, http: httpx.AsyncClient) -> None:
        for turn in range(10_000):
            words = "w " * (1 + (number * 7 + turn * 3) % 40)
            body = {"messages": [{"role": "user", "content": words}], "max_tokens": 60, "n": 1 + turn % 2}
            answer = await http.post(f"{urls[(number + turn) % len(urls)]}/v1/chat/completions", json=body)
            if answer.status_code == 200:
                spent.append(answer.json()["usage"]["total_tokens"])
                continue
            error = answer.json()["error"]
            assert answer.status_code == 429, error
            if error["code"] == "insufficient_quota":
                return
            assert error["code"] == "rate_limit_exceeded"
            await asyncio.sleep(0.05)

    limits = httpx.Limits(max_connections=clients)
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(limits=limits, timeout=60, headers=headers) as http:
        await asyncio.gather(*(client(number, http) for number in range(clients)))
    return spent


def test_a_budget_is_exact_under_64_clients(book: Book) -> None:
    most = 4_000
    key, secret = book.create("one", Limit("tokens", most))
    with serve_toy(keys=book.use(), record="none") as served:
        spent = asyncio.run(spend([served.url], secret))
    assert most <= sum(spent) < most + max(spent)
    assert book.used(key).tokens == sum(spent)
    assert book.used(key).requests == len(spent) == len(served.rows)


def test_a_budget_in_money_is_exact_under_64_clients(book: Book) -> None:
    key, secret = book.create("payer", Limit.parse("money", "0.005"))
    price = Price("EUR", prompt=1.0, completion=2.0)
    with serve_toy(keys=book.use(), record="none", release={"price": price}) as served:
        asyncio.run(spend([served.url], secret))
    amounts = [round(row["cost"]["amount"] * NANO) for row in served.rows]
    most = round(0.005 * NANO)
    assert most <= sum(amounts) < most + max(amounts)
    assert book.used(key).money == sum(amounts)


PROGRAM = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from toy_keys import Book
from toy_server import serve_toy
with serve_toy(keys=Book(Path({root!r}), {database!r}).use(), record="none") as served:
    print(served.url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def gateways(root: Path, count: int, database: str | None = None) -> Iterator[list[str]]:
    program = PROGRAM.format(here=str(HERE), root=str(root), database=database)
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(count)
        ]
        assert all(each.stdout for each in running)
        yield [each.stdout.readline().strip() for each in running if each.stdout]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_budget_is_exact_over_several_gateways(book: Book, count: int) -> None:
    most = 60_000
    key, secret = book.create("one", Limit("tokens", most))
    with gateways(book.workspace.root, count) as urls:
        spent = asyncio.run(spend(urls, secret))
    assert most <= sum(spent) < most + max(spent)
    assert book.used(key).tokens == sum(spent)


@pytest.mark.slow
def test_a_budget_is_exact_over_gateways_that_share_a_server(tmp_path: Path, postgresql: Server) -> None:
    most, url = 30_000, postgresql.schema()
    book = Book(tmp_path / "store", url)
    try:
        key, secret = book.create("one", Limit("tokens", most))
        with gateways(tmp_path / "store", 2, url) as urls:
            spent = asyncio.run(spend(urls, secret))
        assert most <= sum(spent) < most + max(spent)
        assert book.used(key).tokens == sum(spent)
    finally:
        book.close()


@pytest.mark.slow
def test_requests_a_minute_are_exact_over_two_gateways(book: Book) -> None:
    _, secret = book.create("one", Limit("requests", 150, "minute"))
    with gateways(book.workspace.root, 2) as urls:
        while period_of("minute", time.time())[1] < 30:  # type: ignore[operator]
            time.sleep(0.5)

        async def put() -> list[int]:
            headers = {"authorization": f"Bearer {secret}"}
            body = {"messages": [{"role": "user", "content": "a b"}]}
            async with httpx.AsyncClient(timeout=60, headers=headers) as http:
                ended = time.monotonic() + 8

                async def client(number: int) -> int:
                    good = 0
                    while time.monotonic() < ended:
                        answer = await http.post(f"{urls[number % 2]}/v1/chat/completions", json=body)
                        good += answer.status_code == 200
                        await asyncio.sleep(0 if answer.status_code == 200 else 0.05)
                    return good

                return list(await asyncio.gather(*(client(number) for number in range(64))))

        assert sum(asyncio.run(put())) == 150


def test_a_key_whose_end_was_not_written_down_is_when_it_is_revoked_again(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, _ = book.create("one")

    def killed(*_: object, **__: object) -> None:
        raise UserError("no space left on device")

    monkeypatch.setattr(book.keys._ledger, "append", killed)
    with pytest.raises(UserError, match="no space"):
        book.keys.revoke("one", actor="k3:me")
    monkeypatch.undo()
    for _ in range(2):
        assert book.keys.revoke("one", actor="k3:me").revoked is not None
    assert [row.body["key"] for row in book.workspace.ledger.rows("key.revoked")] == [key.id]
