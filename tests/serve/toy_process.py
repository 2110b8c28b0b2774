"""A server with the toy engine as a process of its own: ``python toy_process.py PORT`` says its URL."""

from __future__ import annotations

import sys
from typing import Any

from toy_engine import ToyEngine, ToyTokenizer

from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
from treadle.serve.server import run


class Nothing:
    """Keeps no record."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


async def build() -> Gateway:
    tokenizer = ToyTokenizer()
    serving = Serving(ServedRelease("docs@v1", "b3:" + "1" * 64), ToyEngine(tokenizer, pace=0.01), tokenizer)
    return Gateway(serving, Nothing(), settings=GatewaySettings(record="none", api_key=None))


if __name__ == "__main__":
    run(build, port=int(sys.argv[1]), on_ready=lambda url: print(url, flush=True))  # noqa: T201 - read by the test
