"""The engine that runs any Hugging Face folder: small random models, against transformers itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treadle.core.errors import UserError
from treadle.lm.engine import Chunk, GenerateRequest
from treadle.lm.engines import BlockingEngine, open_engine

F32 = {"precision": "f32"}
FAMILIES = ("llama", "gemma2", "gpt2")
PROMPTS = ((5, 6, 7, 8), (9, 10), (40, 41, 42, 43, 44, 45, 46), (100,), (30, 31, 32), (7, 7, 7, 7, 7))


def asked(number: int, **more: Any) -> GenerateRequest:
    return GenerateRequest(f"r{number}", PROMPTS[number % 6], **{"max_tokens": 4 + 3 * number, **more})


def test_answers_equal_those_of_transformers_however_they_share_batches(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    import torch
    import transformers

    from treadle.lm.tokenizer import ChatTokenizer

    for family in FAMILIES:
        folder = make_model(tmp_path / family, family)
        reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = ChatTokenizer.load(folder)
        expected = []
        for request in map(asked, range(6)):
            ids = torch.tensor([request.prompt_ids])
            found = reference.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=request.max_tokens, do_sample=False
            )
            expected.append(tokenizer.decode(found[0, ids.shape[1] :].tolist()))
        here = family != FAMILIES[0]  # a process of its own takes seconds to load torch
        settings = {**F32, "max_sequences": 4}
        with BlockingEngine("transformers", folder, threads=1, settings=settings, here=here) as engine:
            assert engine.generate_all([asked(i) for i in range(6)]) == expected, family


def test_scores_equal_those_of_transformers(tiny_llama: Path) -> None:
    import torch
    import transformers

    reference = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    pairs = [(list(prompt), [11, 12, 13, 250]) for prompt in PROMPTS]
    with BlockingEngine("transformers", tiny_llama, threads=1, settings=F32, here=True) as engine:
        scores = engine.score(pairs)
        with pytest.raises(UserError, match="cannot classify with LlamaForCausalLM"):
            engine.classify(["text"])
        vectors = engine.embed(["the function", "returns the value"])
    for (prompt, continuation), score in zip(pairs, scores, strict=True):
        with torch.inference_mode():
            logprobs = reference(torch.tensor([prompt + continuation])).logits[0].log_softmax(-1)
        expected = [float(logprobs[len(prompt) - 1 + i, t]) for i, t in enumerate(continuation)]
        assert score.logprobs == pytest.approx(expected, abs=1e-4)
    assert [sum(x * x for x in vector) for vector in vectors] == pytest.approx([1.0, 1.0])


def test_seeds_cancelling_and_logprobs(tiny_llama: Path) -> None:
    async def chunks(engine: Any, request: GenerateRequest) -> list[Chunk]:
        return [chunk async for chunk in engine.generate(request)]

    def text(found: list[Chunk]) -> str:
        return "".join(chunk.text for chunk in found)

    async def work() -> None:
        engine = await open_engine("transformers", tiny_llama, threads=1, settings={**F32, "max_sequences": 2})
        warm: dict[str, Any] = {"temperature": 1.0, "max_tokens": 16, "ignore_eos": True}
        one, other, again = await asyncio.gather(*(chunks(engine, asked(0, seed=s, **warm)) for s in (1, 2, 1)))
        assert text(one) == text(again) != text(other)
        narrow = await chunks(engine, asked(0, seed=3, **warm | {"top_p": 1e-9}))
        greedy = await chunks(engine, asked(0, max_tokens=16, ignore_eos=True, logprobs=True))
        assert text(narrow) == text(greedy)
        assert len([value for chunk in greedy for value in chunk.logprobs]) == 16
        streams = [engine.generate(asked(i, max_tokens=400, ignore_eos=True)) for i in range(4)]
        for stream in streams[:2]:
            await anext(stream)
        waiting = [asyncio.create_task(anext(stream)) for stream in streams[2:]]  # type: ignore[arg-type]
        async with asyncio.timeout(30):
            while engine.stats().queued != 2:
                await asyncio.sleep(0.001)
            await streams[0].aclose()  # type: ignore[attr-defined]
            waiting[1].cancel()
            assert (await waiting[0]).text
            for stream in streams[1:3]:
                await stream.aclose()  # type: ignore[attr-defined]
            while engine.stats().running + engine.stats().queued:
                await asyncio.sleep(0.01)
        assert text(await chunks(engine, asked(0, max_tokens=16, ignore_eos=True))) == text(greedy)
        await engine.close()

    asyncio.run(asyncio.wait_for(work(), 120))


def test_an_encoder_embeds_and_a_classifier_classifies(tmp_path: Path) -> None:
    import torch
    import transformers

    from treadle.lm.base_model import resolve

    base = resolve("all-minilm-l6-v2").path
    texts = ["A cat sits on the mat.", "The kitten is on a rug.", "Interest rates rose by half a percent.", ""]
    with BlockingEngine("auto", base, threads=1, here=True) as engine:
        cat, kitten, rates, _ = engine.embed(texts)
        assert engine.context_length <= 512
        long, longer = engine.embed(["word " * 2000, "word " * 3000])
        assert long == pytest.approx(longer, abs=1e-5)  # what is beyond the context is cut
        with pytest.raises(UserError, match="cannot score"):
            engine.score([([1], [2])])
        with pytest.raises(UserError, match="cannot generate"):
            engine.generate_all([GenerateRequest("a", (1, 2))])

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert cosine(cat, cat) == pytest.approx(1)
    assert cosine(cat, kitten) > 0.5 > 0.2 > cosine(cat, rates)

    torch.manual_seed(0)
    labels = {0: "animals", 1: "money", 2: "other"}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, id2label=labels)
    folder = tmp_path / "classifier"
    model.eval().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((base / name).read_bytes())
    with BlockingEngine("auto", folder, threads=1, here=True) as engine:
        found = engine.classify(texts * 10)
    assert [scores.labels for scores in found] == [("animals", "money", "other")] * 40
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    with torch.inference_mode():
        expected = model(**tokenizer(texts[0], return_tensors="pt")).logits.softmax(-1)[0].tolist()
    assert found[0].probabilities == pytest.approx(expected, abs=1e-4)
    assert found[36].probabilities == pytest.approx(expected, abs=1e-4)


def test_a_config_that_names_nothing_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    with pytest.raises(UserError, match="names no architecture"), BlockingEngine("transformers", folder):
        pass
