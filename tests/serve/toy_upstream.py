"""A gateway in front of other servers: real ones of ours, and ones that misbehave on purpose."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
from toy_server import ListRecorder, redact

from tiny_models import write_tokenizer
from treadle.lm.upstream import UpstreamEngine
from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
from treadle.serve.guardrail import NO_GUARDRAILS, Guardrails
from treadle.serve.keyring import KeyBook
from treadle.serve.server import serving

DIGEST = "b3:" + "fe" * 32


def write_folder(folder: Path, context: int = 4096) -> Path:
    """What of a release's model the engine reads: its tokenizer and its context."""
    write_tokenizer(folder)
    about = {"model_type": "llama", "vocab_size": 320, "max_position_embeddings": context}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


@dataclass
class Front:
    """The gateway from its client's side and from behind."""

    url: str
    gateway: Gateway
    engine: UpstreamEngine
    recorder: ListRecorder
    client: openai.OpenAI
    http: httpx.Client

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.recorder.rows

    def chat(self, text: str = "one two three", **more: Any) -> httpx.Response:
        return self.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": text}]} | more)

    def breakers(self) -> list[str]:
        return [each.breaker for each in self.engine.upstreams()]


@contextmanager
def fronting(
    folder: Path,
    *urls: str,
    release: dict[str, Any] | None = None,
    keys: KeyBook | None = None,
    guardrails: Guardrails = NO_GUARDRAILS,
    rules: dict[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Front]:
    """A gateway whose release is run by the servers at ``urls``, asked for as ``docs-assistant``."""
    recorder = ListRecorder()
    told = {"urls": list(urls), "model": "docs-assistant", **settings}
    made: list[Gateway] = []

    async def build() -> Gateway:
        engine = await UpstreamEngine.open(folder, settings=told)
        served = ServedRelease(**({"name": "front@v3", "digest": DIGEST} | (release or {})))
        rule = GatewaySettings(**({"api_key": None} | (rules or {})))
        answers = Serving(served, engine, engine.tokenizer, guardrails)
        made.append(Gateway(answers, recorder, settings=rule, redact=redact, keys=keys))
        return made[0]

    with (
        serving(build, drain_seconds=5) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client,
        httpx.Client(base_url=url, timeout=30) as http,
    ):
        engine = made[0].serving.engine
        assert isinstance(engine, UpstreamEngine)
        yield Front(url, made[0], engine, recorder, client, http)


@dataclass
class Misbehaving:
    """An HTTP server that does what ``answer`` says with each POST; lists of models are empty."""

    answer: Callable[[BaseHTTPRequestHandler], None]
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    listed: Callable[[BaseHTTPRequestHandler], None] | None = None

    def __enter__(self) -> Misbehaving:
        mine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                """Silent."""

            def do_GET(self) -> None:
                if mine.listed is not None:
                    mine.listed(self)
                else:
                    reply(self, 200, {"data": []})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                mine.asked.append(body)
                mine.paths.append(self.path)
                mine.keys.append(self.headers.get("Authorization"))
                mine.answer(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *arguments: object) -> None:
                """Clients that hang up are no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"


def reply(handler: BaseHTTPRequestHandler, status: int, value: Any, **headers: str) -> None:
    """Send JSON."""
    data = json.dumps(value).encode()
    handler.send_response(status)
    for name, said in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
        handler.send_header(name.replace("_", "-"), said)
    handler.end_headers()
    handler.wfile.write(data)


def stream(handler: BaseHTTPRequestHandler, *events: Any, done: bool = True) -> None:
    """Send events: text as it stands, everything else as JSON; then hang up."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Connection", "close")
    handler.end_headers()
    for event in [*events, *(["[DONE]"] if done else [])]:
        said = event if isinstance(event, str) else json.dumps(event)
        handler.wfile.write(f"data: {said}\n\n".encode())
        handler.wfile.flush()
    handler.close_connection = True


def piece(text: str | None = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """One event of a chat."""
    delta = {"content": text} if text is not None else {}
    choice = {"index": 0, "delta": delta | more.pop("delta", {}), "finish_reason": reason, **more.pop("choice", {})}
    return {"object": "chat.completion.chunk", "model": "big-7b", "choices": [choice], **more}
