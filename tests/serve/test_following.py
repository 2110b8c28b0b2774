"""A server that follows: what ought to answer changes while requests are answered, and no request notices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from toy_engine import ToyEngine, ToyTokenizer
from toy_server import ListRecorder, redact

from treadle.core.errors import TreadleError, UserError
from treadle.lm.breaker import Breaker
from treadle.lm.engine import EngineGone
from treadle.lm.upstream_address import Address, UpstreamState
from treadle.record.deployment import Routing
from treadle.record.shadow import ShadowSettings
from treadle.serve.following import Follower, View
from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
from treadle.serve.server import serving
from treadle.serve.table import Table

ONE, TWO, THREE = ("b3:" + digit * 64 for digit in "123")


class Marked(ToyEngine):
    """Begins every answer with the number of its release."""

    def __init__(self, tokenizer: ToyTokenizer, mark: str, pace: float) -> None:
        super().__init__(tokenizer, pace=pace)
        self.mark = mark

    async def generate(self, request: Any) -> Any:
        first = True
        async for chunk in super().generate(request):
            yield type(chunk)(f"{self.mark}: {chunk.text}" if first else chunk.text, chunk.tokens, chunk.finish_reason)
            first = False


@dataclass
class Orders:
    """What ought to answer, as a test says it, with real toy engines; what the follower reports is kept."""

    routing: Routing | None = field(default_factory=lambda: Routing(ONE))
    gone: frozenset[str] = frozenset()
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    pace: float = 0.0
    opening: float = 0.0
    broken: set[str] = field(default_factory=set)
    blind: bool = False
    engines: dict[str, list[Marked]] = field(default_factory=dict)
    reports: list[dict[str, float]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    upstream: Callable[[], list[UpstreamState]] | None = None

    def look(self, held: frozenset[str]) -> View:
        if self.blind:
            raise TreadleError("the database is held")
        return View(self.routing, self.gone & held, dict(self.aliases))

    async def open(self, release: str) -> Serving:
        self.asked.append(release)
        try:
            await asyncio.sleep(self.opening)
        except asyncio.CancelledError:
            self.given_up.append(release)
            raise
        if release in self.broken:
            raise UserError("no weights here")
        tokenizer = ToyTokenizer()
        engine = Marked(tokenizer, release[3], self.pace)
        self.engines.setdefault(release, []).append(engine)
        if self.upstream is not None:
            engine.upstreams = self.upstream  # type: ignore[attr-defined]
        return Serving(ServedRelease(f"docs@v{release[3]}", release), engine, tokenizer)

    def begin(self, endpoint: str) -> None:
        self.begun.append(endpoint)

    def report(self, shares: Mapping[str, float]) -> None:
        self.reports.append(dict(shares))

    def cannot(self, release: str, reason: str) -> None:
        self.failures.append((release, reason))

    def failing(self, release: str, place: str) -> None:
        self.failures.append((release, place))

    def end(self) -> None:
        self.begun.append("ended")


@dataclass
class Following:
    url: str
    orders: Orders
    gateway: Gateway
    recorder: ListRecorder
    http: httpx.Client

    def ask(self, text: str = "one two three", **more: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": text}]} | more)

    def release(self) -> str:
        return str(self.ask().json()["system_fingerprint"])

    def models(self) -> list[dict[str, Any]]:
        return list(self.http.get("/v1/models").json()["data"])


@contextmanager
def following(orders: Orders, *, keep_seconds: float = 60.0, **more: Any) -> Iterator[Following]:
    recorder = ListRecorder()
    follower = Follower(orders, keep_seconds=keep_seconds, **more)
    made: list[Gateway] = []

    async def build() -> Gateway:
        made.append(Gateway(Table(), recorder, settings=GatewaySettings(api_key=None), redact=redact))
        await follower.start(made[0])
        return made[0]

    with serving(build, drain_seconds=5, beside=follower.following) as url, httpx.Client(base_url=url) as client:
        yield Following(url, orders, made[0], recorder, client)


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_nothing_promoted_is_one_line_at_the_start() -> None:
    with pytest.raises(UserError, match="nothing has been promoted yet"), following(Orders(routing=None)):
        pass


def test_a_promotion_is_followed_while_the_old_one_answers_to_its_end() -> None:
    orders = Orders(pace=0.05, opening=0.3)
    switches: list[Table] = []
    with following(orders, on_switch=switches.append, keep_seconds=0) as server, ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(server.ask, "word " * 40, stream=bool(number % 2)) for number in range(4)]
        until(lambda: server.gateway.in_flight == 4)
        orders.routing = Routing(TWO)
        assert server.release() == ONE  # it is being opened meanwhile
        until(lambda: server.release() == TWO)
        assert not orders.engines[ONE][0].closed
        for each in slow:
            answer = each.result()
            assert answer.status_code == 200
            assert ONE in answer.text
            assert TWO not in answer.text
        until(lambda: orders.engines[ONE][0].closed)
        assert orders.begun == [server.url]
        assert orders.reports == [{ONE: 1.0}, {TWO: 1.0}]
        assert [table.champion.release.digest for table in switches if table.champion] == [TWO]
    assert orders.begun == [server.url, "ended"]
    assert orders.engines[TWO][0].closed
    for row in server.recorder.rows:
        assert row["answer"].startswith(row["release"][3] + ": ")
        assert row["share"] == 1.0
        assert row["status"] == "ok"


def test_a_rollback_needs_no_loading() -> None:
    orders = Orders()
    with following(orders) as server:
        orders.routing = Routing(TWO)
        until(lambda: server.release() == TWO)
        assert [model["digest"] for model in server.models()] == [TWO]
        assert server.ask(model="docs@v1").status_code == 404
        orders.opening = 3600  # whoever had to be opened now would not come
        for wanted in (ONE, TWO, ONE):
            orders.routing = Routing(wanted)
            until(lambda wanted=wanted: server.release() == wanted)  # type: ignore[misc]
        assert orders.asked == [ONE, TWO]


def test_what_is_kept_is_closed_after_a_while() -> None:
    orders = Orders()
    with following(orders, keep_seconds=0.2) as server:
        orders.routing = Routing(TWO)
        until(lambda: server.release() == TWO)
        until(lambda: orders.engines[ONE][0].closed)
        assert server.release() == TWO


def test_only_one_is_kept() -> None:
    orders = Orders()
    with following(orders) as server:
        for wanted in (TWO, THREE):
            orders.routing = Routing(wanted)
            until(lambda wanted=wanted: server.release() == wanted)  # type: ignore[misc]
        until(lambda: orders.engines[ONE][0].closed)
        assert not orders.engines[TWO][0].closed


def test_a_canary_beside_the_champion() -> None:
    orders = Orders(aliases={ONE: ("champion",), TWO: ("challenger",)})
    with following(orders) as server:
        orders.routing = Routing(ONE, TWO, 0.3)
        until(lambda: len(server.models()) == 2)
        assert [(model["aliases"], model["share"]) for model in server.models()] == [
            (["champion"], 0.7),
            (["challenger"], 0.3),
        ]
        for _ in range(60):
            server.ask(user=None)
        drawn = {(row["release"], row["share"]) for row in server.recorder.rows}
        assert drawn == {(ONE, 0.7), (TWO, 0.3)}
        sides = [{server.ask(user=f"user {number}").json()["model"] for _ in range(4)} for number in range(30)]
        assert all(len(side) == 1 for side in sides)
        assert len(set.union(*sides)) == 2
        assert server.ask(model="docs@challenger").json()["system_fingerprint"] == TWO
        assert server.recorder.rows[-1]["share"] is None
        metrics = server.http.get("/metrics").text
        assert f'treadle_release_share{{digest="{TWO}",release="docs@v2"}} 0.3' in metrics
        assert 'treadle_answers_total{release="docs@v2",status="ok"}' in metrics
        orders.routing, orders.aliases = Routing(TWO), {TWO: ("champion",), ONE: ("previous",)}
        until(lambda: len(server.models()) == 1)
        assert server.models()[0]["aliases"] == ["champion"]
        assert orders.asked == [ONE, TWO]  # it was open already
    assert orders.reports == [{ONE: 1.0}, {ONE: 0.7, TWO: 0.3}, {TWO: 1.0}]


def test_a_canary_that_is_taken_back_is_closed() -> None:
    orders = Orders(routing=Routing(ONE, TWO, 0.5))
    with following(orders) as server:
        until(lambda: len(server.models()) == 2)
        orders.routing = Routing(ONE)
        until(lambda: orders.engines[TWO][0].closed)
        assert server.release() == ONE


def test_what_cannot_be_opened_changes_nothing_and_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.serve.following._FIRST_PAUSE", 0.1)
    orders = Orders(broken={TWO})
    with following(orders) as server:
        orders.routing = Routing(TWO)
        until(lambda: orders.asked.count(TWO) == 3)
        assert orders.failures == [(TWO, "UserError")]
        assert server.release() == ONE
        assert server.http.get("/health/ready").status_code == 200
        assert orders.reports == [{ONE: 1.0}]
        orders.broken.clear()
        until(lambda: server.release() == TWO)


def test_a_change_of_mind_ends_the_opening() -> None:
    orders = Orders()
    with following(orders) as server:
        orders.opening = 3600
        orders.routing = Routing(TWO)
        until(lambda: TWO in orders.asked)
        orders.routing = Routing(ONE)
        until(lambda: orders.given_up == [TWO])
        assert server.release() == ONE


def test_a_withdrawn_champion_answers_nobody() -> None:
    orders = Orders(pace=0.05)
    with following(orders) as server, ThreadPoolExecutor(1) as pool:
        last = pool.submit(server.ask, "word " * 20)
        until(lambda: server.gateway.in_flight == 1)
        orders.routing = None
        until(lambda: not server.models())
        for path, body in (
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "model": "docs@v1"}),
            ("/v1/completions", {"prompt": "hi", "stream": True}),
            ("/v1/embeddings", {"input": "hi"}),
            ("/v1/classify", {"input": "hi"}),
        ):
            answer = server.http.post(path, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_model"), path
            assert answer.headers["retry-after"]
        assert server.http.get("/v1/models/docs").json()["error"]["code"] == "no_model"
        ready = server.http.get("/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "no_model"})
        assert "treadle_in_flight_requests" in server.http.get("/metrics").text
        assert last.result().status_code == 200
        until(lambda: orders.engines[ONE][0].closed)
        assert orders.reports[-1] == {}
        orders.routing = Routing(TWO)
        until(lambda: server.ask().status_code == 200)
        assert server.release() == TWO


def test_an_erased_release_is_not_kept() -> None:
    orders = Orders()
    with following(orders) as server:
        orders.routing = Routing(TWO)
        until(lambda: server.release() == TWO)
        assert not orders.engines[ONE][0].closed
        orders.gone = frozenset({ONE})
        until(lambda: orders.engines[ONE][0].closed)


def test_a_record_that_cannot_be_read_stops_nothing() -> None:
    orders = Orders()
    with following(orders) as server:
        orders.blind = True
        time.sleep(0.7)
        assert server.release() == ONE
        orders.routing, orders.blind = Routing(TWO), False
        until(lambda: server.release() == TWO)


def test_an_opening_is_given_up_at_the_end() -> None:
    orders = Orders()
    with following(orders):
        orders.opening = 3600
        orders.routing = Routing(TWO)
        until(lambda: TWO in orders.asked)
    assert orders.given_up == [TWO]
    assert orders.begun[-1] == "ended"


def test_a_fallback_and_a_shadow_are_opened_beside_the_champion_and_go_with_their_names() -> None:
    orders = Orders(routing=Routing(ONE, fallback=TWO, shadow=THREE))
    said: list[Table] = []
    shadow = ShadowSettings(release="@challenger", share=1.0)
    with following(orders, shadow=shadow, on_switch=said.append) as server:
        until(lambda: server.gateway.table.fallback is not None and server.gateway.table.shadow is not None)
        assert said[-1] == server.gateway.table
        assert server.release() == ONE
        until(lambda: len(server.recorder.rows) == 2)
        copied = server.recorder.rows[1]
        assert (copied["release"], copied["origin"]) == (THREE, "shadow")
        orders.engines[ONE][0].failing = EngineGone("gone")
        assert server.release() == TWO
        assert server.ask(model=f"docs@v{TWO[3]}").status_code == 404
        assert [each["id"] for each in server.models()] == ["docs@v1"]
        orders.routing = Routing(ONE)
        until(lambda: orders.engines[TWO][0].closed and orders.engines[THREE][0].closed)
        assert server.ask().status_code == 503
        orders.routing = Routing(ONE, TWO, 0.5, fallback=TWO, shadow=TWO)  # one engine in three parts
        until(lambda: server.gateway.table.canary is not None)
        assert len(orders.engines[TWO]) == 2
        assert len(server.gateway.table.held()) == 2
        orders.routing = Routing(TWO, fallback=ONE)
        until(lambda: server.gateway.table.fallback is not None and server.gateway.table.fallback.release.digest == ONE)
        assert server.release() == TWO
        assert len(orders.engines[TWO]) == 2
    assert orders.reports[0] == {ONE: 1.0}


def test_where_the_champion_cannot_be_opened_the_fallback_answers_until_it_can() -> None:
    orders = Orders(routing=Routing(ONE, fallback=TWO), broken={ONE})
    with following(orders) as server:
        assert server.release() == TWO
        assert server.http.get("/health/ready").status_code == 200
        assert orders.failures == [(ONE, "UserError")]
        assert orders.reports == [{TWO: 1.0}]
        assert server.recorder.rows[0]["share"] is None
        assert server.ask(model="docs@v1").status_code == 503
        orders.broken.clear()
        until(lambda: server.release() == ONE)
        assert orders.reports[-1] == {ONE: 1.0}
    with (
        pytest.raises(UserError, match="no weights here"),
        following(Orders(routing=Routing(ONE, fallback=TWO), broken={ONE, TWO})),
    ):
        pass


def test_a_fallback_that_cannot_be_opened_is_told_and_harms_nobody() -> None:
    orders = Orders(routing=Routing(ONE, fallback=TWO, shadow=THREE), broken={TWO, THREE})
    with following(orders, shadow=ShadowSettings(release="x")) as server:
        until(lambda: len(orders.failures) == 2)
        assert server.release() == ONE
        assert server.gateway.table.fallback is None
        assert server.gateway.table.shadow is None


def test_a_server_behind_a_release_that_fails_is_told_once() -> None:
    address = Address("http://10.0.0.5:8000/v1", Breaker(1, 30, 0.2))
    with following(Orders(upstream=lambda: [address.state()])) as server:
        time.sleep(0.7)
        assert not server.orders.failures
        address.breaker.failed()
        until(lambda: server.orders.failures == [(ONE, "10.0.0.5:8000")])
        address.breaker.begin()
        address.breaker.succeeded()
        address.breaker.failed()
        time.sleep(0.7)
        assert len(server.orders.failures) == 1
