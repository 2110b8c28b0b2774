"""A real server with the small real engine, and what it leaves behind."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
from starlette.types import ASGIApp
from toy_engine import ToyEngine, ToyTokenizer

from treadle.core.digest import keyed_digest
from treadle.record.feedback import Feedback
from treadle.record.interaction import Interaction
from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
from treadle.serve.guardrail import NO_GUARDRAILS, Guardrails
from treadle.serve.keyring import KeyBook
from treadle.serve.server import serving

DIGEST = "b3:" + "ab" * 32


@dataclass
class ListRecorder:
    """A record that keeps its rows in lists, through the form in which the journal writes them."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)
    broken: bool = False

    def interaction(self, row: Interaction) -> None:
        if self.broken:
            raise OSError("no space left on device")
        self.rows.append(row.to_dict())

    def feedback(self, row: Feedback) -> None:
        self.said.append(row.to_dict())

    def find_interaction(self, interaction: str) -> Interaction | None:
        return next((Interaction.from_dict(r) for r in self.rows if r["id"] == interaction), None)

    def feedback_on(self, interaction: str) -> list[Feedback]:
        return [Feedback.from_dict(r) for r in self.said if r["interaction"] == interaction]

    def keyed(self, person: str) -> str:
        return keyed_digest(b"k" * 32, "subject", person)

    def keyed_text(self, text: str) -> str:
        return keyed_digest(b"k" * 32, "text", text)


def redact(text: str) -> str:
    """Takes e-mail addresses out."""
    return re.sub(r"\S+@\S+", "[email]", text)


@dataclass
class Served:
    """A running server, seen from the client's side and from behind."""

    url: str
    gateway: Gateway
    engine: ToyEngine
    recorder: ListRecorder
    client: openai.OpenAI
    http: httpx.Client
    loop: asyncio.AbstractEventLoop

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.recorder.rows

    def chat(self, text: str = "one two three", **more: Any) -> httpx.Response:
        body = {"model": "docs-assistant", "messages": [{"role": "user", "content": text}]} | more
        return self.http.post("/v1/chat/completions", json=body)


@contextmanager
def serve_toy(
    *,
    release: dict[str, Any] | None = None,
    key: str | None = None,
    pace: float = 0.0,
    context: int = 400,
    mounts: Mapping[str, ASGIApp] | None = None,
    keys: KeyBook | None = None,
    guardrails: Guardrails = NO_GUARDRAILS,
    **settings: Any,
) -> Iterator[Served]:
    tokenizer = ToyTokenizer()
    engine = ToyEngine(tokenizer, context_length=context, pace=pace)
    recorder = ListRecorder()
    fields = {"name": "docs-assistant@v1", "digest": DIGEST, "aliases": ("champion",), "created": 1_700_000_000}
    served = Serving(ServedRelease(**(fields | (release or {}))), engine, tokenizer, guardrails)
    made: list[Gateway] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def build() -> Gateway:
        loops.append(asyncio.get_running_loop())
        rules = GatewaySettings(**({"api_key": key} | settings))
        made.append(Gateway(served, recorder, settings=rules, redact=redact, keys=keys))
        return made[0]

    headers = {"authorization": f"Bearer {key}".encode()} if key else {}
    with serving(build, drain_seconds=5, mounts=mounts) as url, ExitStack() as stack:
        client = stack.enter_context(
            openai.OpenAI(base_url=f"{url}/v1", api_key=key or "none", max_retries=0, timeout=30)
        )
        http = stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=30))
        yield Served(url, made[0], engine, recorder, client, http, loops[0])
