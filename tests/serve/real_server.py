"""A gateway over HTTP in front of a real model in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
from toy_server import DIGEST, ListRecorder, redact

from treadle.lm.tokenizer import ChatTokenizer
from treadle.lm.transformers_engine import TransformersEngine
from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
from treadle.serve.server import serving


@dataclass
class RealServer:
    """What a client sees, and what was recorded."""

    client: openai.OpenAI
    http: httpx.Client
    recorder: ListRecorder


@contextmanager
def serve_model(folder: Path, *, tokenizer: bool = True, **release: Any) -> Iterator[RealServer]:
    """A model folder as the release ``tiny@v1``, by the transformers engine in float32."""
    recorder = ListRecorder()

    async def build() -> Gateway:
        engine = await TransformersEngine.open_here(folder, threads=1, settings={"precision": "f32"})
        known = ChatTokenizer.load(folder) if tokenizer else None
        served = Serving(ServedRelease("tiny@v1", DIGEST, **release), engine, known)
        return Gateway(served, recorder, settings=GatewaySettings(api_key=None), redact=redact)

    with (
        serving(build) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as http,
    ):
        yield RealServer(client, http, recorder)
