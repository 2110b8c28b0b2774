"""``top_logprobs`` and ``logprobs: N``: what a real model held possible at each place, against transformers itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from real_server import RealServer, serve_model
from toy_server import Served

from treadle.lm.tokenizer import ChatTokenizer

PROMPT = "the function returns"
QUESTION: list[Any] = [{"role": "user", "content": PROMPT}]


def expected_at(folder: Path, ids: list[int], most: int) -> list[tuple[bytes, float]]:
    """The most probable tokens behind ``ids``."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        best = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1).topk(most)
    spell = ChatTokenizer.load(folder).spell
    return [(spell(i), v) for i, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def test_a_chat_tells_what_else_the_model_held_possible(tiny_llama: Path) -> None:
    tokenizer = ChatTokenizer.load(tiny_llama)
    with serve_model(tiny_llama, max_tokens=12) as real:
        asked: dict[str, Any] = {"model": "tiny", "messages": QUESTION, "logprobs": True, "top_logprobs": 5}
        answer = real.client.chat.completions.create(**asked)
        told = answer.choices[0].logprobs
        assert told is not None
        assert told.content is not None
        assert answer.usage is not None
        assert len(told.content) == answer.usage.completion_tokens
        first = expected_at(tiny_llama, tokenizer.encode_chat(QUESTION), 5)
        assert [bytes(each.bytes or ()) for each in told.content[0].top_logprobs] == [token for token, _ in first]
        given = [each.logprob for each in told.content[0].top_logprobs]
        assert given == pytest.approx([value for _, value in first], abs=1e-4)
        for entry in told.content:  # greedy: what was chosen is the first
            assert len(entry.top_logprobs) == 5
            assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob)
            assert entry.top_logprobs == sorted(entry.top_logprobs, key=lambda each: -each.logprob)
        text = answer.choices[0].message.content or ""
        assert b"".join(bytes(each.bytes or ()) for each in told.content).decode("utf-8", "replace") == text
        streamed = real.client.chat.completions.create(**asked, stream=True)
        pieces = [e for c in streamed if c.choices[0].logprobs for e in c.choices[0].logprobs.content or ()]
        assert pieces == told.content
        hot = real.client.chat.completions.create(**asked, temperature=2, seed=1).choices[0].logprobs
        assert hot is not None  # what was drawn need not be among them
        assert any(e.bytes not in [top.bytes for top in e.top_logprobs] for e in hot.content or ())
        with pytest.raises(openai.BadRequestError, match="only goes with logprobs: true"):
            real.client.chat.completions.create(model="tiny", messages=QUESTION, top_logprobs=2)
        with pytest.raises(openai.BadRequestError, match="top_logprobs"):
            real.client.chat.completions.create(**asked | {"top_logprobs": 21})


def test_a_completion_tells_it_in_the_older_shape(tiny_llama: Path) -> None:
    tokenizer = ChatTokenizer.load(tiny_llama)
    with serve_model(tiny_llama) as real:
        answer = real.client.completions.create(model="tiny", prompt=PROMPT, max_tokens=8, logprobs=3)
        told = answer.choices[0].logprobs
        assert told is not None
        assert told.top_logprobs is not None
        assert told.tokens is not None
        assert told.token_logprobs is not None
        first = expected_at(tiny_llama, tokenizer.encode_prompt(PROMPT), 3)
        assert told.top_logprobs[0] == pytest.approx(
            {token.decode("utf-8", "replace"): value for token, value in reversed(first)}, abs=1e-4
        )
        assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset or ())
        for token, value, tops in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
            assert tops[token] == pytest.approx(value)
        whole = real.client.completions.create(model="tiny", prompt=PROMPT, max_tokens=8, logprobs=0)
        assert whole.choices[0].logprobs is not None
        assert whole.choices[0].logprobs.top_logprobs is None
        assert whole.choices[0].text == answer.choices[0].text


def test_an_engine_without_alternatives_is_named(served: Served, start: Callable[..., Served]) -> None:
    with pytest.raises(openai.BadRequestError, match=r"top_logprobs: telling of any alternatives .* the toy engine"):
        served.client.chat.completions.create(model="docs-assistant", messages=QUESTION, logprobs=True, top_logprobs=1)
    with pytest.raises(openai.BadRequestError, match=r"logprobs: telling of any alternatives .* the toy engine"):
        served.client.completions.create(model="docs-assistant", prompt="x", logprobs=1)
    served.engine.most_alternatives = 2  # type: ignore[attr-defined]
    with pytest.raises(openai.BadRequestError, match=r"telling of more than 2 alternatives"):
        served.client.completions.create(model="docs-assistant", prompt="x", logprobs=3)
    assert served.rows == []


def test_structured_answers_are_told_of_as_well(tiny_llama: Path) -> None:
    pytest.importorskip("llguidance")
    with serve_model(tiny_llama) as real:
        answer = _held(real)
        told = answer.choices[0].logprobs
        assert told is not None
        assert all(len(each.top_logprobs) == 2 for each in told.content or ())


def _held(real: RealServer) -> Any:
    return real.client.chat.completions.create(
        model="tiny",
        messages=QUESTION,
        max_tokens=60,
        logprobs=True,
        top_logprobs=2,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["yes", "no"]}}},
    )
