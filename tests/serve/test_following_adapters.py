"""A server that follows releases of one base: promotions, rollbacks and a canary start no other engine's process."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from toy_server import ListRecorder, redact

from apart_release import write_apart
from toy_adapting import AdaptingEngine
from treadle.record.deployment import Routing
from treadle.serve.following import Follower, View
from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
from treadle.serve.server import serving
from treadle.serve.table import Table

RELEASES = {"b3:" + str(digit) * 64: 70 + digit for digit in (1, 2, 3)}
ONE, TWO, BROKEN = RELEASES


@dataclass
class Orders:
    """What ought to answer; releases are folders."""

    folder: Path
    routing: Routing = field(default_factory=lambda: Routing(ONE))
    letters: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def look(self, held: frozenset[str]) -> View:
        return View(self.routing)

    async def open(self, release: str) -> Serving:
        engine = await AdaptingEngine.open(self.folder / release[3], threads=1)
        self.letters[release] = engine.tokenizer.spell(RELEASES[release]).decode()
        return Serving(ServedRelease(f"docs@v{release[3]}", release), engine, engine.tokenizer)

    def begin(self, endpoint: str) -> None:
        pass

    def report(self, shares: Mapping[str, float]) -> None:
        pass

    def cannot(self, release: str, reason: str) -> None:
        self.failures.append(release)

    def failing(self, release: str, place: str) -> None:
        pass

    def end(self) -> None:
        pass


@dataclass
class Following:
    http: httpx.Client
    orders: Orders
    journal: Path
    said: list[tuple[str, str]] = field(default_factory=list)

    def ask(self, _: int = 0) -> str:
        """The release that an answer names, which has to be the one whose adapter gave it."""
        body = {"messages": [{"role": "user", "content": "one two"}], "max_tokens": 5}
        reply = self.http.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        release, text = reply.json()["system_fingerprint"], reply.json()["choices"][0]["message"]["content"]
        assert text == self.orders.letters[release] * 5, (release, text)
        return str(release)

    def until(self, release: str) -> None:
        deadline = time.monotonic() + 20
        while self.ask() != release:
            assert time.monotonic() < deadline, "it did not switch"


@pytest.fixture
def following(tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Following]:
    monkeypatch.setenv("TOY_JOURNAL", str(tmp_path / "journal"))
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    for release, alpha in RELEASES.items():
        write_apart(tiny_llama, tmp_path / release[3], seed=alpha, alpha=float(alpha))
    broken = tmp_path / BROKEN[3] / "adapter" / "adapter_model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    orders = Orders(tmp_path)
    follower = Follower(orders, keep_seconds=0)

    async def build() -> Gateway:
        gateway = Gateway(Table(), ListRecorder(), settings=GatewaySettings(api_key=None), redact=redact)
        await follower.start(gateway)
        return gateway

    with (
        serving(build, drain_seconds=5, beside=follower.following) as url,
        httpx.Client(base_url=url, timeout=30, trust_env=False) as http,
    ):
        yield Following(http, orders, tmp_path / "journal")


def test_promotions_rollbacks_and_a_canary_under_load(following: Following) -> None:
    switches = [Routing(TWO), Routing(ONE), Routing(ONE, TWO, 0.5), Routing(TWO), Routing(ONE)] * 2
    with ThreadPoolExecutor(4) as pool:
        for routing in switches:
            following.orders.routing = routing
            load = pool.map(following.ask, range(40))
            following.until(routing.canary or routing.champion)
            seen = Counter(load)
            if routing.canary:
                seen = Counter(pool.map(following.ask, range(60)))
                assert set(seen) == {ONE, TWO}, seen
    assert following.journal.read_text().splitlines().count("open") == 1


def test_a_release_that_is_cut_short_changes_nothing(following: Following) -> None:
    following.orders.routing = Routing(BROKEN)
    deadline = time.monotonic() + 20
    while not following.orders.failures:
        assert following.ask() == ONE
        assert time.monotonic() < deadline
    assert following.orders.failures == [BROKEN]
    following.orders.routing = Routing(TWO)
    following.until(TWO)
    assert following.journal.read_text().splitlines().count("open") == 1
