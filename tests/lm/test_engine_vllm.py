"""vLLM as an engine. What needs vLLM itself runs where it is installed, here or where TREADLE_VLLM_PYTHON says."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import treadle
from apart_release import write_apart
from tiny_models import write_encoder, write_model, write_wide_model
from treadle.core.errors import UserError
from treadle.doctor import Finding, examine
from treadle.integrations.vllm import VARIABLE, VllmEngine, VllmSettings
from treadle.lm.engine import GenerateRequest
from treadle.lm.engines import BlockingEngine

THERE = bool(os.environ.get(VARIABLE)) or importlib.util.find_spec("vllm") is not None
F32: dict[str, Any] = {"precision": "f32"}
PROMPTS = ((5, 6, 7, 8), (9, 10), (40, 41, 42, 43, 44, 45, 46), (100,))
SCHEMA = {
    "type": "object",
    "properties": {"grade": {"enum": ["good", "bad"]}},
    "required": ["grade"],
    "additionalProperties": False,
}


def test_without_vllm_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tiny_llama: Path, tmp_path: Path
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"an environment of its own .* set {VARIABLE}="):
        VllmEngine.python()
    assert not VllmEngine.suits(tiny_llama)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    with pytest.raises(UserError, match="is no program"):
        VllmEngine.python()


def test_only_models_that_write_are_taken(monkeypatch: pytest.MonkeyPatch, tiny_llama: Path, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, sys.executable)
    assert VllmEngine.suits(tiny_llama)
    encoder = write_encoder(tmp_path / "bert", ["a text"])
    assert not VllmEngine.suits(encoder)
    with pytest.raises(UserError, match="takes no other kind"):
        VllmEngine.check(encoder)
    with pytest.raises(UserError, match="did you mean 'memory'"):
        VllmEngine.read_settings({"memori": 1})
    assert "PYTHONPATH" not in VllmEngine.environment(VllmSettings())  # it is this interpreter
    monkeypatch.setenv(VARIABLE, "/bin/sh")
    (only,) = Path(VllmEngine.environment(VllmSettings())["PYTHONPATH"]).iterdir()  # and nothing of what lies beside it
    assert only.resolve() == Path(next(iter(treadle.__path__))).resolve()


def test_doctor_asks_the_environment_that_it_would_run_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def found() -> Finding:
        return next(each for each in examine() if each.part == "engine vllm")

    python = tmp_path / "python"
    for script, state, said in (("echo 9.9", "works", "vLLM 9.9, by"), ("exit 1", "missing", "-m pip install vllm")):
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        monkeypatch.setenv(VARIABLE, str(python))
        assert (found().state, said in found().detail) == (state, True), found()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    assert "is no program" in found().detail


@pytest.fixture(scope="module")
def wide_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama that vLLM takes on a CPU."""
    return write_wide_model(tmp_path_factory.mktemp("models") / "wide-llama")


@pytest.fixture(scope="module")
def engines(wide_llama: Path) -> Iterator[tuple[BlockingEngine, BlockingEngine]]:
    """vLLM, and the transformers engine to compare it with."""
    with (
        BlockingEngine("transformers", wide_llama, threads=1, settings=F32, here=True) as plain,
        BlockingEngine("vllm", wide_llama, threads=1, settings=F32) as vllm,
    ):
        yield vllm, plain


@pytest.mark.slow
@pytest.mark.skipif(not THERE, reason="vLLM is not installed")
def test_answers_scores_and_alternatives_are_those_of_transformers(
    engines: tuple[BlockingEngine, BlockingEngine],
) -> None:
    vllm, plain = engines
    asked = [GenerateRequest(f"r{i}", prompt, max_tokens=4 + 3 * i) for i, prompt in enumerate(PROMPTS)]
    assert vllm.generate_all(asked) == plain.generate_all(asked)
    pairs = [(list(prompt), [11, 12, 13, 250]) for prompt in PROMPTS]
    for mine, theirs in zip(vllm.score(pairs), plain.score(pairs), strict=True):
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-3)
    first = [_chunks(each, GenerateRequest("t", PROMPTS[0], max_tokens=5, alternatives=4)) for each in engines]
    tokens = [[told for chunk in chunks for told in chunk.alternatives] for chunks in first]
    for mine, theirs in zip(*tokens, strict=True):
        assert [each.token for each in mine] == [each.token for each in theirs]
        assert [each.logprob for each in mine] == pytest.approx([each.logprob for each in theirs], abs=1e-3)
    with pytest.raises(UserError, match="only generates"):
        vllm.embed(["text"])


@pytest.mark.slow
@pytest.mark.skipif(not THERE, reason="vLLM is not installed")
def test_answers_keep_to_a_schema_and_a_bad_one_harms_nobody(engines: tuple[BlockingEngine, BlockingEngine]) -> None:
    vllm, _ = engines
    held = [
        GenerateRequest(f"s{n}", (5, 6, 7 + n), 60, float(n > 0), seed=n, schema=json.dumps(SCHEMA)) for n in range(4)
    ]
    free = GenerateRequest("free", (5, 6, 7), max_tokens=20)
    alone = vllm.generate_all([free])
    *answers, beside = vllm.generate_all([*held, free])
    assert [beside] == alone
    for answer in answers:
        jsonschema.validate(json.loads(answer), SCHEMA)
    with pytest.raises(UserError, match="response_format: this schema cannot be kept to"):
        vllm.generate_all([GenerateRequest("bad", (5,), schema='{"type": "no such type"}')])
    assert vllm.generate_all([free]) == alone


@pytest.mark.slow
@pytest.mark.skipif(not THERE, reason="vLLM is not installed")
def test_a_killed_worker_is_replaced_and_a_client_that_leaves_is_let_go(wide_llama: Path) -> None:
    async def main() -> None:
        engine = await VllmEngine.open(wide_llama, threads=1, settings=F32)
        try:
            stream: Any = engine.generate(GenerateRequest("left", (5, 6), max_tokens=400, ignore_eos=True))
            await anext(stream)
            await stream.aclose()
            while engine.stats().running:
                await asyncio.sleep(0.05)
            stream = engine.generate(GenerateRequest("lost", (5, 6), max_tokens=400, ignore_eos=True))
            await anext(stream)
            os.kill(engine.worker_pid or 0, signal.SIGKILL)
            rest = [chunk async for chunk in stream]
            assert rest[-1].finish_reason == "error"
            again = [chunk async for chunk in engine.generate(GenerateRequest("again", (5, 6), max_tokens=4))]
            assert again[-1].finish_reason in ("length", "stop")
        finally:
            await engine.close()

    asyncio.run(main())


@pytest.fixture(scope="module")
def apart(wide_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two releases of one base, of different ranks."""
    folder = tmp_path_factory.mktemp("apart")
    return [write_apart(wide_llama, folder / f"r{n}", seed=n, rank=4 * n) for n in (1, 2)]


@pytest.mark.slow
@pytest.mark.skipif(not THERE, reason="vLLM is not installed")
def test_adapters_of_one_base_are_answered_together_and_each_by_itself(wide_llama: Path, apart: list[Path]) -> None:
    """Two adapters in one step, the same prompts by turns, with prefixes kept from request to request."""
    long = tuple(3 + n % 300 for n in range(260))  # more than two of the blocks that vLLM keeps
    asked = [
        GenerateRequest(f"r{n}", prompt, max_tokens=10, ignore_eos=True)
        for n, prompt in enumerate([*PROMPTS, long, (*long, 7), long[:200]])
    ]
    pairs = [(list(prompt), [11, 12, 13, 250]) for prompt in PROMPTS]
    expected = []
    for folder in (wide_llama, *apart):
        with BlockingEngine("transformers", folder, threads=1, settings=F32, here=True) as plain:
            expected.append((plain.generate_all(asked), [score.logprobs for score in plain.score(pairs)]))
    assert all(len({texts[n] for texts, _ in expected}) == 3 for n in range(len(asked)))  # nobody's text is another's

    async def texts(engine: VllmEngine) -> list[str]:
        async def text(request: GenerateRequest) -> str:
            return "".join([chunk.text async for chunk in engine.generate(request)])

        return list(await asyncio.gather(*map(text, asked)))

    async def main() -> None:
        began = time.perf_counter()
        one = await VllmEngine.open(apart[0], threads=1, settings=F32)
        opening = time.perf_counter() - began
        two = await VllmEngine.open(apart[1], threads=1, settings=F32)
        pid = one.worker_pid
        assert pid == two.worker_pid is not None
        for _ in range(3):
            assert await asyncio.gather(texts(one), texts(two)) == [expected[1][0], expected[2][0]]
        for engine, (_, scores) in ((one, expected[1]), (two, expected[2])):
            for mine, theirs in zip(await engine.score(pairs), scores, strict=True):
                assert mine.logprobs == pytest.approx(theirs, abs=1e-3)
        for turn in range(4):  # promotions and rollbacks
            await (one, two)[turn % 2].close()
            assert await texts((one, two)[1 - turn % 2]) == expected[2 - turn % 2][0]
            began = time.perf_counter()
            again = await VllmEngine.open(apart[turn % 2], threads=1, settings=F32)
            assert time.perf_counter() - began < opening / 2
            one, two = (again, two) if turn % 2 == 0 else (one, again)
            assert await asyncio.gather(texts(one), texts(two)) == [expected[1][0], expected[2][0]]
            assert one.worker_pid == two.worker_pid == pid
        stream: Any = one.generate(GenerateRequest("left", (5, 6), max_tokens=400, ignore_eos=True))
        await anext(stream)
        await one.close()  # with an answer under way
        assert [chunk async for chunk in stream][-1].finish_reason == "cancelled"
        assert await texts(two) == expected[2][0]
        os.kill(pid, signal.SIGKILL)
        while two.worker_pid == pid:
            await asyncio.sleep(0.1)
        assert await texts(two) == expected[2][0]  # waits for the next one, which loads the adapter before it is ready
        await two.close()

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.skipif(not THERE, reason="vLLM is not installed")
def test_an_adapter_that_vllm_cannot_take_is_refused_and_harms_nobody(
    wide_llama: Path, apart: list[Path], tmp_path: Path
) -> None:
    wide = write_apart(wide_llama, tmp_path / "wide", seed=3, rank=32)
    cut, other = (Path(shutil.copytree(apart[1], tmp_path / name)) for name in ("cut", "other"))
    path = cut / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])
    shutil.rmtree(other / "model")
    write_model(other / "model")
    wrong = (
        (wide, "an adapter of rank 32; engine vllm takes rank 16 at most"),
        (cut, "truncated or damaged|cut short or changed"),
        (other, "an adapter for another base"),
    )
    request = GenerateRequest("r", PROMPTS[0], max_tokens=8, ignore_eos=True)

    async def main() -> None:
        one = await VllmEngine.open(apart[0], threads=1, settings=F32)
        before = [chunk.text async for chunk in one.generate(request)]
        for folder, said in wrong:
            with pytest.raises(UserError, match=said) as caught:
                await VllmEngine.open(folder, threads=1, settings=F32)
            assert "\n" not in str(caught.value)
            assert [chunk.text async for chunk in one.generate(request)] == before
        await one.close()

    asyncio.run(main())


def _chunks(engine: BlockingEngine, request: GenerateRequest) -> list[Any]:
    async def read() -> list[Any]:
        return [chunk async for chunk in engine._opened.generate(request)]

    return engine._wait(read())
