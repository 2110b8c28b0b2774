"""The server against the bare engine, side by side: ``python -m benchmarks.serve [--quick]``.

``engine_N``: tokens/s of N streams over HTTP, divided by those of openvino-genai's own ContinuousBatchingPipeline with
the same prompts, model file and scheduler, driven in a loop by a process of its own. Both processes stay up and take
turns, each round with prompts that neither has seen; the ratio is the median over the rounds.

``http_overhead_*``: what a request costs with an engine that answers at once, through everything else that a real one
goes through (tokenizer, personal data, journal, metrics), minus the same engine called directly.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import http_load
from benchmarks.report import percentile, print_report, versions

MODEL = "smollm2-135m-instruct"
SYSTEM_PROMPT = "You explain Python's standard library in one or two sentences."
STREAMS = (1, 4, 16)
TOKENS = 64
PROPERTIES: dict[str, Any] = {"ENABLE_CPU_PINNING": False}
ANSWER = "Serialize obj to a JSON formatted string."
_spawn = multiprocessing.get_context("spawn")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Our server against the bare engine.")
    parser.add_argument("--quick", action="store_true", help="within 60 seconds, less exact")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as scratch:
        folder = prepare(Path(scratch, "model"))
        figures: dict[str, Any] = overhead(folder, 1_000 if quick else 5_000)
        rounds, waves, seconds = (3, 1, 20) if quick else (6, 2, 600)
        ratios, seen = against_engine(folder, rounds=rounds, waves=waves, seconds=seconds)
    figures |= seen
    figures["versions"] = versions(("openvino-genai", "uvicorn", "uvloop", "starlette", "msgspec", "tokenizers"))
    print_report("serve", ratios, figures)


def prepare(folder: Path) -> Path:
    """The base model as a release has it: a Q8_0 GGUF beside its tokenizer."""
    from treadle.lm.base_model import resolve
    from treadle.lm.gguf import write_gguf

    source = resolve(MODEL).path
    folder.mkdir(parents=True)
    for file in source.glob("*.json"):
        shutil.copy(file, folder)
    write_gguf(source, folder / "model.gguf", "q8_0")
    return folder


def against_engine(folder: Path, *, rounds: int, waves: int, seconds: float) -> tuple[dict[str, float], dict[str, Any]]:
    """Ratios ``engine_N``, and the tokens/s and gaps behind them; begins no further round after ``seconds``."""
    ours: dict[int, list[http_load.Load]] = {n: [] for n in STREAMS}
    theirs: dict[int, list[float]] = {n: [] for n in STREAMS}
    asked = questions()
    with _process(_serve_engine, folder) as (url, _), _process(_run_bare, folder) as (_, bare):

        def over_http(texts: list[str], n: int) -> http_load.Load:
            return http_load.streams(url, [_request(text) for text in texts], n)

        def directly(texts: list[str], n: int) -> float:
            bare.send((texts, n))
            rate: float = bare.recv()
            return rate

        warm_up = [next(asked) for _ in range(4)]
        over_http(warm_up, 4)
        directly(warm_up, 4)
        started = time.perf_counter()
        for number in range(rounds):
            if number and time.perf_counter() - started > seconds:
                break
            for n in STREAMS:
                texts = [next(asked) for _ in range(max(2, n) * waves)]
                if number % 2:
                    theirs[n].append(directly(texts, n))
                    ours[n].append(over_http(texts, n))
                else:
                    ours[n].append(over_http(texts, n))
                    theirs[n].append(directly(texts, n))
    ratios: dict[str, float] = {}
    figures: dict[str, Any] = {"rounds": len(ours[1])}
    for n in STREAMS:
        rates = [load.tokens / load.seconds for load in ours[n]]
        ratios[f"engine_{n}"] = statistics.median(a / b for a, b in zip(rates, theirs[n], strict=True))
        figures[f"tokens_per_second_{n}"] = round(statistics.median(rates), 1)
        figures[f"bare_tokens_per_second_{n}"] = round(statistics.median(theirs[n]), 1)
        first = [value for load in ours[n] for value in load.first]
        figures[f"ttft_p50_ms_{n}"] = round(percentile(first, 50) * 1e3, 1)
        figures[f"longest_gap_ms_{n}"] = round(max(load.longest_gap for load in ours[n]) * 1e3, 1)
    return ratios, figures


def overhead(folder: Path, count: int) -> dict[str, Any]:
    """Milliseconds a request costs beyond its engine, and microseconds an event of a stream costs."""
    plain = http_load.request_bytes("/v1/chat/completions", _body("What does json.dumps do?"))
    long = _body("What does json.dumps do?") | {"max_tokens": 2000, "stream": True}
    streamed = http_load.request_bytes("/v1/chat/completions", long | {"stream_options": {"include_usage": True}})
    with _process(_serve_trivial, folder) as (url, _):
        http_load.in_turn(url, plain, count // 5)
        seconds = http_load.in_turn(url, plain, count)
        load = http_load.streams(url, [streamed] * 8, 4)
    direct = asyncio.run(directly(count))
    return {
        "http_overhead_p50_ms": round((percentile(seconds, 50) - percentile(direct, 50)) * 1e3, 3),
        "http_overhead_p99_ms": round((percentile(seconds, 99) - percentile(direct, 50)) * 1e3, 3),
        "stream_token_us": round(load.seconds / load.tokens * 1e6, 1),
    }


def questions() -> Iterator[str]:
    """Questions about the standard library, no two alike."""
    for name in ("os", "asyncio", "socket", "ssl", "logging", "threading", "subprocess", "unittest", "typing", "ast"):
        module = importlib.import_module(name)
        for attribute in sorted(vars(module)):
            if not attribute.startswith("_") and not inspect.ismodule(getattr(module, attribute)):
                yield f"What does {name}.{attribute} do, and when should it be used?"


def _body(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": TOKENS}


def _request(text: str) -> bytes:
    body = _body(text) | {"stream": True, "stream_options": {"include_usage": True}}
    return http_load.request_bytes("/v1/chat/completions", body)


@contextmanager
def _process(target: Callable[[Path, Connection], None], folder: Path) -> Iterator[tuple[str, Connection]]:
    """Run ``target`` in a process; it says a first word (a URL, for servers) and ends when it is sent None."""
    ours, theirs = _spawn.Pipe()
    process = _spawn.Process(target=target, args=(folder, theirs), daemon=False)
    process.start()
    theirs.close()
    try:
        yield ours.recv(), ours
        ours.send(None)
        process.join(30)
    finally:
        process.terminate()
        process.join()


def _serve_engine(folder: Path, connection: Connection) -> None:
    from treadle.lm.engines import open_engine

    _serve(folder, connection, lambda: open_engine("openvino", folder))


def _serve_trivial(folder: Path, connection: Connection) -> None:
    async def trivial() -> Trivial:
        return Trivial()

    _serve(folder, connection, trivial)


def _serve(folder: Path, connection: Connection, open_engine: Callable[[], Any]) -> None:
    from treadle.core.workspace import Workspace
    from treadle.lm.tokenizer import ChatTokenizer
    from treadle.record.recorder import JournalRecorder
    from treadle.serve.gateway import Gateway, GatewaySettings, ServedRelease, Serving
    from treadle.serve.server import serving
    from treadle.text.personal_data import redact

    tokenizer = ChatTokenizer.load(folder)
    release = ServedRelease("bench@v1", "b3:" + "0" * 64, system_prompt=SYSTEM_PROMPT)
    root = Path(tempfile.mkdtemp(dir=folder))  # goes with the folder
    with Workspace(root) as workspace:
        recorder = JournalRecorder(workspace.journal, workspace.keys, workspace.ledger)

        async def build() -> Gateway:
            served = Serving(release, await open_engine(), tokenizer)
            return Gateway(served, recorder, settings=GatewaySettings(api_key=None), redact=redact)

        with serving(build) as url:
            connection.send(url)
            connection.recv()


def _run_bare(folder: Path, connection: Connection) -> None:
    """openvino-genai with nothing around it: requests in, steps, tokens out."""
    genai = importlib.import_module("openvino_genai")
    openvino = importlib.import_module("openvino")
    import numpy as np

    from treadle.lm.tokenizer import ChatTokenizer

    tokenizer = ChatTokenizer.load(folder)
    schedule = genai.SchedulerConfig()
    schedule.enable_prefix_caching = True
    schedule.num_kv_blocks = 1024
    # Not pinned, as ours: pinned threads of two processes would share a core.
    pipeline = genai.ContinuousBatchingPipeline(str(folder / "model.gguf"), schedule, "CPU", PROPERTIES)
    config = genai.GenerationConfig()
    config.max_new_tokens = TOKENS
    config.eos_token_id = min(tokenizer.eos_ids)
    config.stop_token_ids = set(tokenizer.eos_ids)
    connection.send("ready")
    number = 0
    while (work := connection.recv()) is not None:
        texts, at_once = work
        waiting = [_prompt(tokenizer, text) for text in reversed(texts)]
        running: list[Any] = []
        tokens = 0
        started = time.perf_counter()
        while waiting or running:
            while waiting and len(running) < at_once:
                number += 1
                ids = openvino.Tensor(np.array([waiting.pop()], dtype=np.int64))
                running.append(pipeline.add_request(number, ids, config))
            pipeline.step()
            left = []
            for handle in running:
                while handle.can_read():
                    tokens += sum(len(output.generated_ids) for output in handle.read().values())
                if handle.get_status() == genai.GenerationStatus.RUNNING:
                    left.append(handle)
            running = left
        connection.send(tokens / (time.perf_counter() - started))


def _prompt(tokenizer: Any, text: str) -> list[int]:
    messages = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": text}]
    ids: list[int] = tokenizer.encode_chat(messages)
    return ids


class Trivial:
    """An engine that answers at once."""

    name = "trivial"
    context_length = 8192

    async def generate(self, request: Any) -> AsyncIterator[Any]:
        from treadle.lm.engine import Chunk

        if request.max_tokens > TOKENS:
            for _ in range(request.max_tokens):
                await asyncio.sleep(0)
                yield Chunk(" word", 1)
            yield Chunk("", 0, "length")
            return
        yield Chunk(ANSWER, 10, "stop")

    async def score(self, pairs: Sequence[Any]) -> list[Any]:
        raise NotImplementedError

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise NotImplementedError

    async def classify(self, texts: Sequence[str]) -> list[Any]:
        raise NotImplementedError

    def stats(self) -> Any:
        from treadle.lm.engine import EngineStats

        return EngineStats()

    async def close(self) -> None:
        return None


async def directly(count: int) -> list[float]:
    from treadle.lm.engine import GenerateRequest

    engine, seconds = Trivial(), []
    for number in range(count):
        started = time.perf_counter()
        async for _ in engine.generate(GenerateRequest(str(number), (1,), TOKENS)):
            pass
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
