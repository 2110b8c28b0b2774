"""What happens when an engine's process is killed, hangs, is closed or loses its parent; a small model suffices."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from treadle.core.errors import UserError
from treadle.lm.engine import Chunk, EngineGone, GenerateRequest
from treadle.lm.engines import BlockingEngine, open_engine
from treadle.lm.worker_engine import WorkerEngine

pytest.importorskip("openvino_genai")
ENGINES = ("openvino", "transformers")


def asked(number: int = 0, **more: Any) -> GenerateRequest:
    return GenerateRequest(f"r{number}", (5, 6, 7, 8 + number), **{"max_tokens": 12, "ignore_eos": True, **more})


async def text_of(engine: WorkerEngine, request: GenerateRequest) -> tuple[str, Chunk]:
    chunks = [chunk async for chunk in engine.generate(request)]
    return "".join(chunk.text for chunk in chunks), chunks[-1]


@asynccontextmanager
async def opened(folder: Path, name: str = "openvino", **settings: Any) -> AsyncIterator[WorkerEngine]:
    engine = await open_engine(name, folder, threads=1, settings=settings)
    assert isinstance(engine, WorkerEngine)
    try:
        yield engine
    finally:
        await engine.close()


def gone(pid: int) -> bool:
    """True once a process has ended, a zombie of another's included."""
    try:
        return " Z" in Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2][:3]
    except OSError:
        return True


async def soon(true: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


def run(work: Coroutine[Any, Any, None], loops: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    with asyncio.Runner(loop_factory=loops) as runner:
        runner.run(asyncio.wait_for(work, 300))


@pytest.mark.parametrize("name", ENGINES)
def test_a_killed_worker_is_replaced_and_its_requests_are_told(name: str, tiny_release: Path, tiny_llama: Path) -> None:
    async def work() -> None:
        async with opened(tiny_release if name == "openvino" else tiny_llama, name) as engine:
            expected, _ = await text_of(engine, asked())
            first = engine.worker_pid
            assert first is not None
            streams = [engine.generate(asked(i, max_tokens=400)) for i in range(3)]
            for stream in streams:
                await anext(stream)
            os.kill(first, signal.SIGKILL)
            for stream in streams:
                rest = [chunk async for chunk in stream]
                assert rest[-1].finish_reason == "error"
            text, last = await text_of(engine, asked())
            assert (text, last.finish_reason) == (expected, "length")
            assert engine.worker_pid != first

    run(work())


def test_the_servers_event_loop_suits_too(tiny_release: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def work() -> None:
        async with opened(tiny_release) as engine:
            expected, _ = await text_of(engine, asked())
            stream = engine.generate(asked(1, max_tokens=400))
            await anext(stream)
            os.kill(engine.worker_pid or 0, signal.SIGKILL)
            assert [chunk async for chunk in stream][-1].finish_reason == "error"
            assert (await text_of(engine, asked()))[0] == expected

    run(work(), uvloop.new_event_loop)


def test_a_killed_worker_ends_a_score_with_an_error_and_stats_say_so(tiny_release: Path) -> None:
    async def work() -> None:
        async with opened(tiny_release) as engine:
            scoring = asyncio.create_task(engine.score([([1, 2, 3], [4] * 400)] * 400))
            await asyncio.sleep(0.2)
            os.kill(engine.worker_pid or 0, signal.SIGKILL)
            with pytest.raises(EngineGone, match="SIGKILL"):
                await scoring
            with pytest.raises(EngineGone, match="started again"):
                engine.stats()
            assert len(await engine.score([([1, 2], [3, 4, 5])])) == 1
            assert engine.stats().memory_bytes > 0

    run(work())


def test_a_worker_that_hangs_is_killed_and_replaced(tiny_release: Path) -> None:
    async def work() -> None:
        async with opened(tiny_release, hang_seconds=3) as engine:
            first = engine.worker_pid
            stream = engine.generate(asked(max_tokens=400))
            await anext(stream)
            os.kill(first or 0, signal.SIGSTOP)
            assert [chunk async for chunk in stream][-1].finish_reason == "error"
            assert (await text_of(engine, asked()))[1].finish_reason == "length"
            assert engine.worker_pid != first

    run(work())


def test_an_idle_engine_is_not_taken_for_a_hanging_one(tiny_release: Path) -> None:
    async def work() -> None:
        async with opened(tiny_release, hang_seconds=0.4) as engine:
            first = engine.worker_pid
            await asyncio.sleep(1.5)
            await text_of(engine, asked(max_tokens=2))
            assert engine.worker_pid == first

    run(work())


def test_close_cancels_what_is_under_way_and_ends_the_process(tiny_release: Path) -> None:
    async def work() -> None:
        async with opened(tiny_release) as engine:
            pid = engine.worker_pid or 0
            stream = engine.generate(asked(max_tokens=400))
            await anext(stream)
            await engine.close()
            assert [chunk async for chunk in stream][-1].finish_reason == "cancelled"
            assert gone(pid)
            with pytest.raises(EngineGone, match="closed"):
                await anext(engine.generate(asked()))
            with pytest.raises(EngineGone):
                engine.stats()

    run(work())


def test_interrupts_of_the_terminal_do_not_reach_the_worker(tiny_release: Path) -> None:
    async def work() -> None:
        async with opened(tiny_release) as engine:
            pid = engine.worker_pid or 0
            assert os.getpgid(pid) != os.getpgrp()
            os.kill(pid, signal.SIGINT)
            assert (await text_of(engine, asked()))[1].finish_reason == "length"
            assert engine.worker_pid == pid

    run(work())


@pytest.mark.parametrize("stopped", [False, True], ids=["busy", "hanging"])
def test_the_worker_ends_with_its_parent(tiny_release: Path, stopped: bool) -> None:
    program = (
        "import asyncio, sys, pathlib\n"
        "from treadle.lm.engines import open_engine\n"
        "async def work():\n"
        "    engine = await open_engine('openvino', pathlib.Path(sys.argv[1]), threads=1)\n"
        "    print(engine.worker_pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(work())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, tiny_release], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        parent.kill()
        run(soon(lambda: gone(pid)))


def test_a_worker_that_cannot_open_the_folder_again_gives_up_with_a_reason(
    tiny_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from treadle.lm import engine_process

    monkeypatch.setattr(engine_process, "_FIRST_PAUSE", 0.01)
    folder = Path(shutil.copytree(tiny_release, tmp_path / "release"))

    async def work() -> None:
        async with opened(folder) as engine:
            shutil.rmtree(folder)
            os.kill(engine.worker_pid or 0, signal.SIGKILL)
            await asyncio.sleep(0.1)
            with pytest.raises(EngineGone, match=r"could not be started again in 5 attempts \(.*config\.json"):
                await text_of(engine, asked())

    run(work())


def test_a_stream_that_is_never_read_costs_nothing(tiny_release: Path) -> None:
    async def work() -> None:
        async with opened(tiny_release) as engine:
            await engine.generate(asked()).aclose()  # type: ignore[attr-defined]
            assert engine.stats().queued == 0

    run(work())


@pytest.mark.parametrize("keep", [0.5, 0.02, 0.9999])
def test_a_truncated_gguf_is_refused_in_one_line(tiny_release: Path, tmp_path: Path, keep: float) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_release, tmp_path / "release"))
    path = folder / "model" / "model.gguf"
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * keep))
    with pytest.raises(UserError, match="truncated or damaged GGUF") as caught, BlockingEngine("openvino", folder):
        pass
    assert "\n" not in str(caught.value)


def test_weights_that_are_pickles_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickle"), BlockingEngine("transformers", folder):
        pass


def test_a_folder_without_weights_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_llama / "config.json").read_bytes())
    with pytest.raises(UserError, match=r"no model\.gguf"), BlockingEngine("openvino", tmp_path):
        pass
    with pytest.raises(UserError, match="without weights"), BlockingEngine("transformers", tmp_path):
        pass


def test_nothing_heavy_is_imported_on_this_side(tiny_release: Path) -> None:
    program = (
        "import sys, pathlib, json\n"
        "from treadle.lm.engines import BlockingEngine\n"
        "with BlockingEngine('auto', pathlib.Path(sys.argv[1]), threads=1) as engine:\n"
        "    engine.score([([1, 2], [3])])\n"
        "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tiny_release], capture_output=True, text=True, check=True)
    assert {"openvino", "openvino_genai", "torch", "transformers", "numpy"}.isdisjoint(json.loads(done.stdout))


def test_generate_all_says_how_far_it_is_and_raises_when_the_process_is_lost(tiny_release: Path) -> None:
    seen: list[tuple[int, int]] = []
    with BlockingEngine("openvino", tiny_release, threads=1) as engine:
        engine.generate_all([asked(i) for i in range(3)], lambda done, of: seen.append((done, of)))
        assert seen == [(1, 3), (2, 3), (3, 3)]
        engine.score([([1], [2, 3])] * 80, lambda done, of: seen.append((done, of)))
        assert seen[3:] == [(64, 80), (80, 80)]
        assert engine.score([([1], [])])[0].logprobs == ()
        with pytest.raises(UserError, match="token id 320"):
            engine.generate_all([asked(), GenerateRequest("bad", (320,))])
        opened_engine = engine._opened
        assert isinstance(opened_engine, WorkerEngine)
        killer = subprocess.Popen(["/bin/sh", "-c", f"sleep 0.3; kill -9 {opened_engine.worker_pid}"])
        with pytest.raises(EngineGone, match="lost"):
            engine.generate_all([asked(i, max_tokens=480) for i in range(60)])
        killer.wait()


def test_a_worker_in_this_process_scores_alike(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import transformers

    from treadle.lm.transformers_engine import TransformersBackend

    def ours() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "treadle-engine-worker"]

    with BlockingEngine("transformers", tiny_llama, threads=1, settings={"precision": "f32"}, here=True) as engine:
        scored = engine.score([([5, 6], [7, 8, 9])])[0]
        assert len(ours()) == 1
    assert ours() == []
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama)
    with torch.no_grad():
        chances = model(torch.tensor([[5, 6, 7, 8, 9]])).logits.log_softmax(-1)[0]
    assert scored.logprobs == pytest.approx([float(chances[1 + i, 7 + i]) for i in range(3)], abs=1e-5)

    def fail(*_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(TransformersBackend, "score_some", fail)
    with (
        BlockingEngine("transformers", tiny_llama, threads=1, here=True) as engine,
        pytest.raises(EngineGone, match="ended with code 1: RuntimeError: no such luck"),
    ):
        engine.score([([5], [6])])
