"""What the gateway costs, beside LiteLLM's proxy: ``python -m benchmarks.gateway [--quick]``.

Ours has everything on: an API key with limits on tokens and requests, personal data taken out of the record, each
request in the journal, metrics. Its engine answers at once, in the same process.

``added_p50_ms``, ``added_p99_ms``: what a request costs beyond that engine called directly, one at a time.
``upstream_added_p50_ms``, ``upstream_added_p99_ms``: the same of a gateway before a server of another process that
answers at once (engine ``upstream``), beyond that server asked directly.
``rss_mb``: resident memory after the last request, tokenizer and record included; ``rss_growth_mb``: since a tenth of
them.
``litellm``: requests a second with 16 connections, ours over those of LiteLLM's proxy in an environment of its own
(``.venv-peers/litellm``), with one worker, a master key, and an answer that it makes up itself (``mock_response``): no
database, no budgets, no record. Both take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import http_load
from benchmarks.peers import PeerServer, environment, peer_server
from benchmarks.report import percentile, print_report, versions
from benchmarks.serve import ANSWER, SYSTEM_PROMPT, TOKENS, Trivial, directly, prepare

PACKAGE = "litellm[proxy]==1.108.7"
CHAT = "/v1/chat/completions"
CONNECTIONS = 16
_KEY = "sk-bench"
BODY = {"model": "bench", "messages": [{"role": "user", "content": "What does json.dumps do?"}], "max_tokens": TOKENS}
_spawn = multiprocessing.get_context("spawn")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Our gateway against LiteLLM's proxy.")
    parser.add_argument("--quick", action="store_true", help="within 60 seconds, less exact")
    quick = parser.parse_args().quick
    peer_folder = environment("litellm", PACKAGE)
    rounds, theirs_each, ours_each = (2, 200, 2_000) if quick else (5, 1_000, 10_000)
    with tempfile.TemporaryDirectory() as scratch:
        folder = prepare(Path(scratch, "model"))
        figures: dict[str, Any] = before_upstream(folder, 1_000 if quick else 10_000)
        with ours(folder) as (url, key, process), litellm(peer_folder, Path(scratch)) as theirs:
            mine, other = (http_load.request_bytes(CHAT, BODY, secret) for secret in (key, _KEY))
            count = 1_000 if quick else 10_000
            figures |= added(url, mine, count)
            with theirs.awake() as peer:
                http_load.side_by_side(peer, other, 50, CONNECTIONS)
            rates: list[tuple[float, float]] = []
            for _ in range(rounds):
                rate = http_load.side_by_side(url, mine, ours_each, CONNECTIONS)
                with theirs.awake() as peer:
                    rates.append((rate, http_load.side_by_side(peer, other, theirs_each, CONNECTIONS)))
            figures |= memory(url, mine, process, 4_000 if quick else 200_000)
    figures["requests_per_second"] = round(statistics.median(rate for rate, _ in rates))
    figures["litellm_requests_per_second"] = round(statistics.median(rate for _, rate in rates), 1)
    figures["versions"] = versions(("uvicorn", "uvloop", "starlette", "msgspec")) | {"litellm": PACKAGE}
    print_report("gateway", {"litellm": statistics.median(a / b for a, b in rates)}, figures)


def added(url: str, request: bytes, count: int) -> dict[str, float]:
    """Milliseconds beyond the engine itself."""
    http_load.in_turn(url, request, max(200, count // 5))
    seconds = http_load.in_turn(url, request, count)
    engine = percentile(asyncio.run(directly(count)), 50)
    return {f"added_p{percent}_ms": round((percentile(seconds, percent) - engine) * 1e3, 3) for percent in (50, 99)}


def before_upstream(folder: Path, count: int) -> dict[str, float]:
    """Milliseconds beyond the server behind, both asked over HTTP in turns."""
    with in_process(_upstream, folder) as (behind, _, _), in_process(_serve, folder, behind) as (url, key, _):
        direct, mine = (http_load.request_bytes(CHAT, BODY, secret) for secret in (None, key))
        alone, through = list[float](), list[float]()
        for _ in range(11):
            alone.append(statistics.median(http_load.in_turn(behind, direct, count // 10)))
            through += http_load.in_turn(url, mine, count // 10)
    through = through[count // 10 :]  # after a warm-up
    return {
        f"upstream_added_p{percent}_ms": round((percentile(through, percent) - statistics.median(alone[1:])) * 1e3, 3)
        for percent in (50, 99)
    }


def memory(url: str, request: bytes, process: int, count: int) -> dict[str, float]:
    """Resident memory in MB, and what it grew by after the first tenth of so many requests."""
    http_load.side_by_side(url, request, count // 10, CONNECTIONS)
    before = resident(process)
    http_load.side_by_side(url, request, count - count // 10, CONNECTIONS)
    after = resident(process)
    return {"rss_mb": round(after, 1), "rss_growth_mb": round(after - before, 1), "rss_requests": count}


def resident(process: int) -> float:
    """In MB, of a process."""
    return int(Path(f"/proc/{process}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def ours(folder: Path) -> AbstractContextManager[tuple[str, str, int]]:
    """URL, key and process of our gateway."""
    return in_process(_serve, folder)


@contextmanager
def in_process(serve: Callable[..., None], *arguments: Any) -> Iterator[tuple[str, str, int]]:
    """URL, key and process of a server in a process of its own."""
    here, there = _spawn.Pipe()
    process = _spawn.Process(target=serve, args=(there, *arguments))
    process.start()
    there.close()
    try:
        url, key = here.recv()
        assert process.pid is not None
        yield url, key, process.pid
        here.send(None)
        process.join(30)
    finally:
        process.terminate()
        process.join()


def _serve(connection: Connection, folder: Path, upstream: str | None = None) -> None:
    with opened(folder, upstream=upstream) as address:
        connection.send(address)
        connection.recv()


class _Answering(asyncio.Protocol):
    """Answers each request at once: in events where it says ``stream``, else whole."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._data = transport, b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if not found or len(body) < length:
            return
        self._data = body[length:]
        if head.startswith(b"GET"):
            kind, said = b"application/json", [{"object": "list", "data": [{"id": "bench", "object": "model"}]}]
        elif b'"stream":true' in body.replace(b" ", b""):
            kind, said = b"text/event-stream", [_chunk({"role": "assistant", "content": ANSWER}), _chunk({}, "stop")]
        else:
            message = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
            kind, said = b"application/json", [{**_HEAD, "object": "chat.completion", "choices": [message]}]
        text = [json.dumps(each).encode() for each in said]
        if kind == b"text/event-stream":
            text = [b"data: %s\n\n" % each for each in (*text, b"[DONE]")]
        whole = b"".join(text)
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (kind, len(whole), whole)
        )


_USAGE = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
_HEAD: dict[str, Any] = {"id": "chatcmpl-1", "created": 0, "model": "bench", "usage": _USAGE}


def _chunk(delta: dict[str, str], ended: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": ended}
    return {**_HEAD, "object": "chat.completion.chunk", "choices": [choice]}


def _upstream(connection: Connection, _folder: Path) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Answering, "127.0.0.1", 0)
        connection.send((f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", ""))
        await asyncio.to_thread(connection.recv)

    uvloop.run(run())


@contextmanager
def opened(
    folder: Path, begin: Callable[[], object] = lambda: None, *, upstream: str | None = None
) -> Iterator[tuple[str, str]]:
    """URL and key of our gateway in a thread of this process, which calls ``begin`` first. ``upstream``: who answers,
    in place of the engine that does at once."""
    from treadle.core.workspace import Workspace
    from treadle.lm.tokenizer import ChatTokenizer
    from treadle.record.api_key import ApiKeys, Limit, Rules
    from treadle.record.api_key_use import ApiKeyUse
    from treadle.record.recorder import JournalRecorder
    from treadle.serve.gateway import Gateway, GatewaySettings, Price, ServedRelease, Serving
    from treadle.serve.server import serving
    from treadle.text.personal_data import redact

    tokenizer = ChatTokenizer.load(folder, opening=SYSTEM_PROMPT)
    release = ServedRelease("bench@v1", "b3:" + "0" * 64, system_prompt=SYSTEM_PROMPT, price=Price("USD", 0.1, 0.4))
    with Workspace(Path(tempfile.mkdtemp(dir=folder))) as workspace:
        recorder = JournalRecorder(workspace.journal, workspace.keys, workspace.ledger)
        keys = ApiKeys(workspace.database, workspace.ledger)
        limits = (
            Limit("tokens", 10**12, "day"), Limit.parse("money", "1000000/month"),
            Limit("requests", 10**9, "minute"), Limit("tokens", 10**12, "minute"),
        )  # fmt: skip
        _, secret = keys.create("bench", Rules(limits=limits), seconds=None, actor="bench")
        use = ApiKeyUse(workspace.database, workspace.state, keys, workspace.root / "uncounted")

        async def build() -> Gateway:
            begin()
            engine: Any = Trivial() if upstream is None else _before(upstream, tokenizer)
            served = Serving(release, engine, tokenizer)
            return Gateway(served, recorder, settings=GatewaySettings(api_key=None), redact=redact, keys=use)

        with serving(build) as url:
            yield url, secret


def _before(upstream: str, tokenizer: Any) -> Any:
    """The engine of a gateway before that server. What it imports is no part of a gateway without."""
    from treadle.lm.upstream import UpstreamEngine
    from treadle.lm.upstream_settings import UpstreamSettings

    return UpstreamEngine(UpstreamSettings(urls=[f"{upstream}/v1"], model="bench"), tokenizer)


def litellm(folder: Path, scratch: Path) -> AbstractContextManager[PeerServer]:
    """LiteLLM's proxy, which answers by itself."""
    config = scratch / "litellm.yaml"
    config.write_text(
        "model_list:\n  - model_name: bench\n    litellm_params:\n      model: openai/bench\n      api_key: none\n"
        f"      mock_response: {ANSWER!r}\ngeneral_settings:\n  master_key: {_KEY}\n"
        "litellm_settings:\n  telemetry: false\n"
    )
    options = ("--num_workers", "1", "--telemetry", "False")
    return peer_server(
        lambda port: [
            folder / "bin" / "litellm",
            "--config",
            config,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            *options,
        ],
        scratch / "litellm.log",
        ready="/health/liveliness",
        variables={"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_DOCS": "True"},
    )


if __name__ == "__main__":
    main()
