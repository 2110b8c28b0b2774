"""Encoder-decoders behind the engine: small random models, against transformers itself."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tiny_models import write_encoder_decoder
from treadle.core.errors import UserError
from treadle.lm.engine import GenerateRequest
from treadle.lm.engines import BlockingEngine
from treadle.lm.tokenizer import ChatTokenizer
from treadle.lm.transformers_engine import TransformersEngine

F32 = {"precision": "f32"}
FAMILIES = ("t5", "bart", pytest.param("marian", marks=pytest.mark.slow))
SOURCES = ((5, 6, 7, 8, 2), (9, 10, 2), (40, 41, 42, 43, 44, 45, 46, 2), (100, 2), (30, 31, 32, 2), (7, 7, 7, 7, 2))


@pytest.fixture(scope="session", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder_decoder(tmp_path_factory.mktemp("models") / request.param, request.param)


def asked(number: int, **more: Any) -> GenerateRequest:
    return GenerateRequest(f"r{number}", SOURCES[number % 6], **{"max_tokens": 4 + 3 * number, **more})


def test_answers_equal_those_of_transformers_however_they_share_batches(folder: Path) -> None:
    import torch
    import transformers

    reference = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = ChatTokenizer.load(folder)
    expected = []
    for request in map(asked, range(6)):
        ids = torch.tensor([request.prompt_ids])
        found = reference.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=request.max_tokens, do_sample=False, num_beams=1
        )
        expected.append(tokenizer.decode(found[0, 1:].tolist()))
    assert len(set(expected)) > 2  # the source matters
    with BlockingEngine("transformers", folder, threads=1, settings={**F32, "max_sequences": 4}, here=True) as engine:
        assert engine.generate_all([asked(i) for i in range(6)]) == expected


def test_scores_equal_those_of_transformers(folder: Path) -> None:
    import torch
    import transformers

    reference = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    pairs = [(list(source), [11, 12, 250, 2][place % 3 :]) for place, source in enumerate(SOURCES)]
    with BlockingEngine("transformers", folder, threads=1, settings=F32, here=True) as engine:
        scores = engine.score(pairs)
        with pytest.raises(UserError, match="cannot embed with"):
            engine.embed(["text"])
    for (source, target), score in zip(pairs, scores, strict=True):
        with torch.inference_mode():
            loss = reference(input_ids=torch.tensor([source]), labels=torch.tensor([target])).loss
        assert -score.total / len(target) == pytest.approx(float(loss), abs=1e-4)


def test_seeds_cancelling_stops_and_logprobs(folder: Path) -> None:
    async def chunks(engine: Any, request: GenerateRequest) -> list[Any]:
        return [chunk async for chunk in engine.generate(request)]

    def text(found: list[Any]) -> str:
        return "".join(chunk.text for chunk in found)

    async def work() -> None:
        engine = await TransformersEngine.open_here(folder, threads=1, settings={**F32, "max_sequences": 2})
        warm: dict[str, Any] = {"temperature": 1.0, "max_tokens": 16, "ignore_eos": True}
        one, other, again = await asyncio.gather(*(chunks(engine, asked(0, seed=s, **warm)) for s in (1, 2, 1)))
        assert text(one) == text(again) != text(other)
        greedy = await chunks(engine, asked(0, max_tokens=16, ignore_eos=True, logprobs=True))
        (score,) = await engine.score([(SOURCES[0], [1, 2])])
        assert len(score.logprobs) == 2
        assert len([value for chunk in greedy for value in chunk.logprobs]) == 16
        stop = text(greedy)[3:5]
        stopped = await chunks(engine, asked(0, max_tokens=16, ignore_eos=True, stop=(stop,)))
        assert (text(stopped), stopped[-1].finish_reason) == (text(greedy).partition(stop)[0], "stop")
        streams = [engine.generate(asked(i, max_tokens=120, ignore_eos=True)) for i in range(3)]
        for stream in streams[:2]:
            await anext(stream)
        await streams[0].aclose()  # type: ignore[attr-defined]
        await anext(streams[2])
        for stream in streams[1:]:
            await stream.aclose()  # type: ignore[attr-defined]
        async with asyncio.timeout(30):
            while engine.stats().running + engine.stats().queued:
                await asyncio.sleep(0.01)
        assert text(await chunks(engine, asked(0, max_tokens=16, ignore_eos=True))) == text(greedy)
        await engine.close()

    asyncio.run(asyncio.wait_for(work(), 120))


def test_the_source_is_read_apart_from_the_answer(folder: Path) -> None:
    long = tuple([7] * 127 + [2])
    with BlockingEngine("transformers", folder, threads=1, settings=F32, here=True) as engine:
        assert engine.context_length == 128
        engine.generate_all([GenerateRequest("a", long, max_tokens=3)])
        with pytest.raises(UserError, match="the prompt has 129 tokens and the context holds 128"):
            engine.generate_all([GenerateRequest("a", (7, *long), max_tokens=3)])
        with pytest.raises(UserError, match="the context holds 128"):
            engine.score([(list(long), [7] * 129)])


def test_the_users_message_is_the_source(tmp_path: Path) -> None:
    folder = write_encoder_decoder(tmp_path / "t5")
    tokenizer = ChatTokenizer.load(folder)
    user, answer = {"role": "user", "content": "the value"}, {"role": "assistant", "content": "it <|im_end|>"}
    source = [*tokenizer.encode("the value"), 2]
    assert tokenizer.encode_chat([user]) == tokenizer.encode_prompt("the value") == source
    target = [*tokenizer.encode("it <|im_end|>"), 2]  # spelled, it does not end the text
    assert target.count(2) == 1
    assert tokenizer.encode_for_training([user, answer]) == (
        source + target,
        [False] * len(source) + [True] * len(target),
    )
    long = {"role": "user", "content": "the value " * 200}
    ids, said = tokenizer.encode_for_training([long, answer])
    assert (said.index(True), ids[127]) == (128, 2)  # cut, and its end kept
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"prefix": "return "}))
    prefixed = ChatTokenizer.load(folder)
    assert prefixed.encode_chat([user]) == [*tokenizer.encode("return the value"), 2]
    system = {"role": "system", "content": "object "}
    assert prefixed.encode_chat([system, user]) == [*tokenizer.encode("object the value"), 2]
    with pytest.raises(UserError, match="reads one source; expected one user's message"):
        tokenizer.encode_chat([user, answer, user])


def test_ids_and_texts_equal_those_of_transformers_with_a_tokenizer_like_t5s(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(["the value of the object", "Das Haus ist rot, und das Buch ist blau."] * 8, trainer)
    made.post_processor = TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    made.save(str(tmp_path / "tokenizer.json"))
    config = {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True, "eos_token_id": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    named = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), **named)
    ours = ChatTokenizer.load(tmp_path)
    assert ours.sources is not None
    for text in ("the value", "Das Haus ist blau.", " two  spaces", "of </s> the"):
        ids = ours.encode_prompt(text)
        assert ids == theirs(text).input_ids
        assert ours.sources.encode([text], 6)[0] == [theirs(text, truncation=True, max_length=6).input_ids]
        decoder = ours.decoder()
        assert "".join(decoder.push([each]) for each in ids) + decoder.finish() == ours.decode(ids)
