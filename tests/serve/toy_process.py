"""A server with the toy engine as a process of its own: ``python toy_process.py PORT`` says its URL, and, when it has
ended, as JSON, how many requests it had begun with and how their rows say that they ended."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from toy_engine import ToyEngine, ToyTokenizer

from treadle.lm.engine import Chunk, GenerateRequest
from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
from treadle.serve.server import run


class Counting:
    """A record that keeps how requests ended."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()

    def interaction(self, row: Any) -> None:
        self.ended[row.status] += 1

    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


class Holding(ToyEngine):
    """Ends an answer that has the word ``hold`` in it when the server has been told to end, and not before."""

    gateway: Gateway

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        held = "hold" in self.tokenizer.decode(request.prompt_ids).split()
        async for chunk in super().generate(request):
            while held and chunk.finish_reason is not None and not self.gateway.draining:
                await asyncio.sleep(0.002)
            yield chunk


def main(port: int) -> None:
    tokenizer, record = ToyTokenizer(), Counting()
    engine = Holding(tokenizer, pace=0.01)

    async def build() -> Gateway:
        serving = Serving(ServedRelease("docs@v1", "b3:" + "1" * 64), engine, tokenizer)
        engine.gateway = Gateway(serving, record, settings=GatewaySettings(record="none", api_key=None))
        return engine.gateway

    run(build, port=port, on_ready=lambda url: print(url, flush=True))  # noqa: T201 - read by the test
    print(json.dumps({"begun": len(engine.requests), **record.ended}), flush=True)  # noqa: T201 - the same


if __name__ == "__main__":
    main(int(sys.argv[1]))
