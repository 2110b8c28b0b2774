"""vLLM as an engine. What needs vLLM itself runs where it is installed, here or where TREADLE_VLLM_PYTHON says."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tiny_models import VOCABULARY, write_encoder, write_tokenizer
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
    """A random Llama whose heads are as wide as vLLM's attention on a CPU wants them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "wide-llama"
    write_tokenizer(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=96,
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


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


def _chunks(engine: BlockingEngine, request: GenerateRequest) -> list[Any]:
    async def read() -> list[Any]:
        return [chunk async for chunk in engine._opened.generate(request)]

    return engine._wait(read())
