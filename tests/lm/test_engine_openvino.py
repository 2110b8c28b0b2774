"""OpenVINO on the real SmolLM2, rounded to 8 bits: what it generates and how it scores."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from treadle.core.errors import UserError
from treadle.lm.engine import Chunk, EngineStats, GenerateRequest
from treadle.lm.engine_wire import Tokens
from treadle.lm.engines import open_engine
from treadle.lm.tokenizer import ChatTokenizer
from treadle.lm.worker_engine import WorkerEngine, _AnswerText

pytest.importorskip("openvino_genai")
QUESTIONS = (
    "What is Python?",
    "Write one short sentence about Paris.",
    "Name three colors.",
    "What does os.path.join do?",
    "Explain recursion briefly.",
    "Who wrote Hamlet?",
    "What is the capital of Italy?",
    "How many days has a week?",
)
TOLERANCE = 2e-3  # nats a token at f32; 3e-4 was measured


class Served:
    """One engine, its tokenizer, and an event loop to ask it in."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.runner = asyncio.Runner()
        self.tokenizer = ChatTokenizer.load(folder / "model")
        engine = self.run(open_engine("auto", folder, settings=settings))
        assert isinstance(engine, WorkerEngine)
        self.engine = engine

    def run(self, work: Any) -> Any:
        return self.runner.run(asyncio.wait_for(work, 300))

    def asked(self, question: str, **more: Any) -> GenerateRequest:
        ids = tuple(self.tokenizer.encode_chat([{"role": "user", "content": question}]))
        return GenerateRequest(question, ids, **{"max_tokens": 32, **more})

    def stream(self, request: GenerateRequest) -> AsyncGenerator[Chunk]:
        stream = self.engine.generate(request)
        assert isinstance(stream, AsyncGenerator)
        return stream

    async def chunks(self, request: GenerateRequest) -> list[Chunk]:
        return [chunk async for chunk in self.stream(request)]

    async def text(self, request: GenerateRequest) -> str:
        return "".join(chunk.text for chunk in await self.chunks(request))

    async def stats_become(self, running: int, queued: int) -> EngineStats:
        async with asyncio.timeout(60):
            while ((stats := self.engine.stats()).running, stats.queued) != (running, queued):
                await asyncio.sleep(0.02)
        return stats

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.engine.close())
        self.runner.close()


@pytest.fixture(scope="module")
def served(smollm2_release: Path) -> Iterator[Served]:
    with Served(smollm2_release, precision="f32", max_sequences=16) as served:
        yield served


@pytest.fixture(scope="module")
def usual(smollm2_release: Path) -> Iterator[Served]:
    """As it is opened where nothing is set."""
    with Served(smollm2_release) as served:
        yield served


@pytest.fixture(scope="module")
def reference(smollm2: Path, smollm2_release: Path) -> Any:
    """Transformers, with the same rounded weights."""
    import torch
    import transformers

    from treadle.lm import architecture, torch_runtime
    from treadle.lm.gguf_file import GgufFile
    from treadle.lm.model_folder import read_config

    model = torch_runtime.load(smollm2, transformers.AutoModelForCausalLM).eval()
    parameters = dict(model.named_parameters())
    config = read_config(smollm2)
    with torch.no_grad(), GgufFile(smollm2_release / "model" / "model.gguf") as file:
        for tensor in file.tensors:
            name = architecture.hf_name(tensor)
            assert name is not None
            array = file.array(tensor)
            if heads := architecture.heads_to_permute(name, config):
                array = architecture.to_hf_order(array, heads).copy()
            parameters[name].copy_(torch.tensor(array))
    return model


def test_greedy_text_equals_transformers_on_the_same_weights(served: Served, reference: Any) -> None:
    import torch

    for question in QUESTIONS[:4]:
        request = served.asked(question, max_tokens=16)
        ids = torch.tensor([request.prompt_ids])
        found = reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
        expected = served.tokenizer.decode(found[0, ids.shape[1] :].tolist())
        assert served.run(served.text(request)) == expected


def test_scores_equal_transformers_on_the_same_weights(served: Served, reference: Any) -> None:
    import torch

    long = served.tokenizer.encode(Path(__file__).read_text(encoding="utf-8"))[:700]
    pairs = [
        (list(served.asked(question).prompt_ids), served.tokenizer.encode(" Some answer, with é and 日本."))
        for question in QUESTIONS[:3]
    ]
    pairs += [(long[:1], long[1:90]), (long[:650], long[650:])]
    expected = []
    for prompt, continuation in pairs:
        with torch.inference_mode():
            logprobs = reference(torch.tensor([prompt + continuation])).logits[0].log_softmax(-1)
        expected.append([float(logprobs[len(prompt) - 1 + i, t]) for i, t in enumerate(continuation)])
    for _ in range(2):  # the second time everything could come from the prefix cache
        scores = served.run(served.engine.score(pairs))
        for score, values in zip(scores, expected, strict=True):
            assert score.logprobs == pytest.approx(values, abs=TOLERANCE)


@pytest.mark.slow
def test_scores_come_while_answers_are_under_way(usual: Served) -> None:
    async def work(served: Served) -> None:
        pair = (served.asked(QUESTIONS[0]).prompt_ids, served.tokenizer.encode("Some answer."))
        request = served.asked(QUESTIONS[1], max_tokens=40, ignore_eos=True)
        stream = served.stream(request)
        text = (await anext(stream)).text
        (score,) = await served.engine.score([pair])
        text += "".join([chunk.text async for chunk in stream])
        assert text == await served.text(request)
        (again,) = await served.engine.score([pair])
        assert again.logprobs == pytest.approx(score.logprobs)

    usual.run(work(usual))


def test_logprobs_of_an_answer_are_its_scores(served: Served) -> None:
    request = served.asked(QUESTIONS[0], logprobs=True, ignore_eos=True, max_tokens=12)
    chunks = served.run(served.chunks(request))
    logprobs = [value for chunk in chunks for value in chunk.logprobs]
    assert len(logprobs) == sum(chunk.tokens for chunk in chunks) == 12
    ids = served.tokenizer.encode("".join(chunk.text for chunk in chunks))
    (score,) = served.run(served.engine.score([(request.prompt_ids, ids)]))
    assert list(score.logprobs) == pytest.approx(logprobs, abs=TOLERANCE)
    silent = served.run(served.chunks(served.asked(QUESTIONS[0], max_tokens=3)))
    assert all(chunk.logprobs == () for chunk in silent)


@pytest.mark.slow
def test_the_same_question_is_answered_alike_alone_or_among_sixteen(served: Served) -> None:
    requests = [served.asked(f"{question} ({n})", max_tokens=12) for n in range(2) for question in QUESTIONS]
    alone = [served.run(served.text(request)) for request in requests]

    async def together() -> list[str]:
        return list(await asyncio.gather(*(served.text(request) for request in requests)))

    assert served.run(together()) == alone
    assert served.run(together()) == alone
    assert len(set(alone)) > 8


def test_streamed_text_is_the_whole_answer(served: Served) -> None:
    chunks = served.run(served.chunks(served.asked(QUESTIONS[1], max_tokens=60)))
    assert len(chunks) > 5
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason in ("stop", "length")
    assert "<|im_end|>" not in "".join(chunk.text for chunk in chunks)


def test_an_answer_ends_at_the_end_token_or_the_limit(served: Served) -> None:
    short = served.run(served.chunks(served.asked("What is the capital of Italy?", max_tokens=200)))
    assert short[-1].finish_reason == "stop"
    assert sum(chunk.tokens for chunk in short) < 40
    limited = served.run(served.chunks(served.asked(QUESTIONS[0], max_tokens=5)))
    assert (limited[-1].finish_reason, sum(chunk.tokens for chunk in limited)) == ("length", 5)
    on = served.run(served.chunks(served.asked("What is the capital of Italy?", max_tokens=40, ignore_eos=True)))
    assert sum(chunk.tokens for chunk in on) == 40


def test_a_seed_repeats_an_answer_and_no_seed_does_not(served: Served) -> None:
    warm: dict[str, Any] = {"temperature": 1.5, "max_tokens": 12, "ignore_eos": True}

    async def answers(*seeds: int | None) -> list[str]:
        work = (served.text(served.asked(QUESTIONS[0], seed=seed, **warm)) for seed in seeds)
        return list(await asyncio.gather(*work))

    one, other, again = served.run(answers(1, 2, 1))
    assert one == again != other
    assert served.run(answers(1)) == [one]
    assert len(set(served.run(answers(None, None, None)))) == 3
    narrow = [served.asked(QUESTIONS[0], seed=seed, **warm | {"top_p": 1e-6}) for seed in (1, 2)]
    greedy = served.asked(QUESTIONS[0], max_tokens=12, ignore_eos=True)
    assert len({served.run(served.text(request)) for request in (*narrow, greedy)}) == 1


@pytest.mark.parametrize("stop", ["level", "evel, inter", "Python is a h", "g l"])
def test_the_text_ends_exactly_before_a_stop_string(served: Served, stop: str) -> None:
    whole = served.run(served.text(served.asked(QUESTIONS[0], max_tokens=20, ignore_eos=True)))
    chunks = served.run(served.chunks(served.asked(QUESTIONS[0], max_tokens=20, ignore_eos=True, stop=(stop, "\0"))))
    text = "".join(chunk.text for chunk in chunks)
    assert text == whole.partition(stop)[0]
    assert chunks[-1].finish_reason == ("stop" if stop in whole else "length")
    served.run(served.stats_become(0, 0))


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [("😀 🎉 日本語 😀 🎉 日本語 😀 🎉 日本語 😀 🎉", 24), ("🌈🎉🌈🎉🌈🎉🌈🎉🌈🎉", 10)],
)
def test_emoji_and_cjk_arrive_whole(served: Served, prompt: str, tokens: int) -> None:
    ids = tuple(served.tokenizer.encode(prompt))
    chunks = served.run(served.chunks(GenerateRequest("wide", ids, max_tokens=tokens, ignore_eos=True)))
    assert "\ufffd" not in "".join(chunk.text for chunk in chunks[:-1])
    assert not "".join(chunk.text for chunk in chunks).isascii()
    assert any(chunk.tokens > 1 for chunk in chunks)  # a character of several tokens came in one piece


def test_characters_of_several_tokens_are_never_cut(smollm2: Path) -> None:
    tokenizer = ChatTokenizer.load(smollm2)
    text = "naïve 日本語テスト 😀👨‍👩‍👧🏳️‍🌈 — Ωμέγα"
    answer = _AnswerText(tokenizer, GenerateRequest("text", (1,), stop=("Ω",)))
    ids = tokenizer.encode(text)
    assert len(ids) > len(text)
    taken = [answer.take([Tokens(1, [token])]) for token in ids]
    chunks = taken[: [chunk is not None and chunk.finish_reason == "stop" for chunk in taken].index(True) + 1]
    assert "".join(chunk.text for chunk in chunks if chunk is not None) == text.partition("Ω")[0]
    assert all(chunk is None or "\ufffd" not in chunk.text for chunk in chunks)


def test_a_closed_stream_frees_its_place(smollm2_release: Path) -> None:
    async def work(served: Served) -> None:
        streams = [served.stream(served.asked(QUESTIONS[i], max_tokens=2000, ignore_eos=True)) for i in range(3)]
        await anext(streams[0])
        waiting = [asyncio.create_task(anext(stream)) for stream in streams[1:]]
        assert (await served.stats_become(1, 2)).memory_bytes > 100 << 20
        waiting[1].cancel()  # while it queues
        await served.stats_become(1, 1)
        await streams[0].aclose()
        assert (await waiting[0]).text
        await streams[1].aclose()
        await served.stats_become(0, 0)
        assert len(await served.text(served.asked(QUESTIONS[0]))) > 10

    with Served(smollm2_release, max_sequences=1) as served:
        served.run(work(served))


def test_what_cannot_be_done_is_refused_at_the_call(served: Served) -> None:
    size, room = served.tokenizer.vocabulary_size, served.engine.context_length
    good = served.asked(QUESTIONS[0])
    refused: list[tuple[dict[str, Any], str]] = [
        ({"prompt_ids": (1, size)}, f"token id {size} is outside the vocabulary of {size}"),
        ({"prompt_ids": (-1,)}, "token id -1"),
        ({"prompt_ids": ()}, "prompt is empty"),
        ({"prompt_ids": (5,) * room}, f"the prompt has {room} tokens and the context holds {room}"),
        ({"max_tokens": 0}, "max_tokens is 0; expected at least 1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, r"top_p is 0\.0"),
        ({"seed": -1}, "seed is -1"),
        ({"stop": ("",)}, "stop is"),
    ]
    for change, said in refused:
        fields = {name: getattr(good, name) for name in ("id", "prompt_ids", "max_tokens")} | change
        with pytest.raises(UserError, match=said):
            served.engine.generate(GenerateRequest(**fields))
    for pair, said in ((([], [1]), "at least one token"), (([1], [size]), "outside"), (([1] * room, [1]), "context")):
        with pytest.raises(UserError, match=said):
            served.run(served.engine.score([pair]))
    for ask in (served.engine.embed, served.engine.classify):
        with pytest.raises(UserError, match="transformers"):
            served.run(ask(["text"]))
    assert served.run(served.text(good))


@pytest.mark.slow
def test_a_small_cache_limits_the_context_and_serves_more_than_it_holds(smollm2_release: Path) -> None:
    async def work(served: Served) -> None:
        room = served.engine.context_length
        assert 256 <= room < 1024
        ids = (served.tokenizer.encode("word ") * room)[:room]
        with pytest.raises(UserError, match="shorten the prompt"):
            served.engine.generate(GenerateRequest("long", tuple(ids)))
        chunks = await served.chunks(GenerateRequest("full", tuple(ids[:-1]), max_tokens=50, ignore_eos=True))
        assert (chunks[-1].finish_reason, sum(chunk.tokens for chunk in chunks)) == ("length", 1)
        requests = [served.asked(f"{i}: {QUESTIONS[i % 8]}", max_tokens=40, ignore_eos=True) for i in range(16)]
        assert sum(len(request.prompt_ids) + 40 for request in requests) > room
        found = await asyncio.gather(*(served.chunks(request) for request in requests))
        assert [sum(chunk.tokens for chunk in chunks) for chunks in found] == [40] * 16

    with Served(smollm2_release, kv_cache_mb=8) as served:
        served.run(work(served))


def test_the_real_engine_recovers_from_a_kill(usual: Served) -> None:
    async def work(served: Served) -> None:
        expected = await served.text(served.asked(QUESTIONS[0], max_tokens=12))
        stream = served.stream(served.asked(QUESTIONS[1], max_tokens=500, ignore_eos=True))
        first = await anext(stream)
        os.kill(served.engine.worker_pid or 0, signal.SIGKILL)
        rest = [chunk async for chunk in stream]
        assert first.text
        assert rest[-1].finish_reason == "error"
        assert await served.text(served.asked(QUESTIONS[0], max_tokens=12)) == expected

    usual.run(work(usual))
