"""A real server with several releases, each run by a toy engine of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
from toy_engine import ToyEngine, ToyTokenizer
from toy_server import ListRecorder, redact

from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
from treadle.serve.guardrail import NO_GUARDRAILS, Guardrails
from treadle.serve.keyring import KeyBook
from treadle.serve.server import serving
from treadle.serve.table import Shadow, Table

ONE, TWO = ("b3:" + digit * 64 for digit in "12")


@dataclass
class Tabled:
    """``one`` is the champion's engine, ``two`` that of the fallback, the shadow or the canary."""

    url: str
    gateway: Gateway
    one: ToyEngine
    two: ToyEngine
    recorder: ListRecorder
    http: httpx.Client
    loop: asyncio.AbstractEventLoop

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.recorder.rows

    def of(self, release: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["release"] == release]

    def chat(self, text: str = "one two three", **more: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": text}]} | more)

    def metric(self, line: str) -> float:
        found = [each for each in self.http.get("/metrics").text.splitlines() if each.startswith(line + " ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0


@contextmanager
def tabled(
    *,
    shadow: dict[str, Any] | None = None,
    canary: float | None = None,
    keys: KeyBook | None = None,
    guardrails: Guardrails = NO_GUARDRAILS,
    asking: str = "chat",
    other: dict[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Tabled]:
    """The second release is the fallback, or with ``shadow`` (of `Shadow`) that, or the canary with that share."""
    made: list[Gateway] = []
    loops: list[asyncio.AbstractEventLoop] = []
    recorder = ListRecorder()
    first = _serving("docs@v1", ONE, guardrails, asking)
    second = _serving("docs@v2", TWO, NO_GUARDRAILS, asking)
    second = replace(second, release=replace(second.release, **(other or {})))

    async def build() -> Gateway:
        loops.append(asyncio.get_running_loop())
        table = Table(first, shadow=Shadow(second, **shadow)) if shadow else Table(first, fallback=second)
        table = table if canary is None else Table(first, second, canary)
        rules = GatewaySettings(**({"api_key": None} | settings))
        made.append(Gateway(table, recorder, settings=rules, redact=redact, keys=keys))
        return made[0]

    with serving(build, drain_seconds=5) as url, httpx.Client(base_url=url, timeout=30) as http:
        engines = first.engine, second.engine
        assert isinstance(engines[0], ToyEngine)
        assert isinstance(engines[1], ToyEngine)
        yield Tabled(url, made[0], *engines, recorder, http, loops[0])


def _serving(name: str, digest: str, guardrails: Guardrails, asking: str) -> Serving:
    tokenizer = ToyTokenizer()
    return Serving(ServedRelease(name, digest, asking=asking), ToyEngine(tokenizer), tokenizer, guardrails)
