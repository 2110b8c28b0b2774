"""The training loop on small random models: right losses, the same weights every time, nothing left half done."""

from __future__ import annotations

import itertools
import json
import random
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from treadle.core.digest import blake3_file
from treadle.core.errors import UserError
from treadle.lm.answer_pairs import Pair, log_ratio
from treadle.lm.attention_mask import crosses_rows
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.learner import Learner
from treadle.lm.packed_rows import PackedRows
from treadle.lm.packing import TokenizedExample, pack
from treadle.lm.pretraining import PretrainingSettings, pretrain
from treadle.lm.schedule import learning_rate_at
from treadle.lm.tokenizer import ChatTokenizer
from treadle.lm.training import StepReport, TrainingSettings, answer_loss, train

VOCABULARY = 320
SMALL = TrainingSettings(token_budget=6 * 2 * 48, rows=2, width=48, learning_rate=3e-3, threads=1, precision="float32")


def _examples(count: int, seed: int = 0) -> list[TokenizedExample]:
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        size, answer = draw.randint(6, 40), draw.randint(1, 4)
        ids = [draw.randrange(3, VOCABULARY) for _ in range(size)]
        found.append(TokenizedExample(ids, [i >= size - answer for i in range(size)]))
    return found


def _loss_alone(model, example: TokenizedExample) -> float:
    """Transformers' own loss of one example by itself, summed over its answer."""
    labels = torch.tensor([[t if a else -100 for t, a in zip(example.ids, example.answer, strict=True)]])
    with torch.no_grad():
        loss = model(input_ids=torch.tensor([list(example.ids)]), labels=labels).loss
    return float(loss) * sum(example.answer[1:])


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("llama", {}),
        ("qwen2", {}),
        ("gemma2", {}),
        ("gpt2", {}),
        ("mistral", {}),  # all layers look back 8 tokens
        ("gemma2", {"sliding_window": 8}),  # every second one does
    ],
)
def test_packed_loss_is_the_sum_of_one_by_one(tmp_path: Path, make_model, family: str, more: dict[str, Any]) -> None:
    folder = make_model(tmp_path / family, family, **more)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    assert not crosses_rows(folder)
    examples = _examples(12)
    packing = pack(examples, width=96)
    assert len(packing.rows) < len(examples)
    with torch.no_grad():
        packed = float(answer_loss(model, examples, packing.rows, 96))
    assert packed == pytest.approx(sum(_loss_alone(model, e) for e in examples), rel=1e-5)


@pytest.mark.parametrize("family", ["lfm2", "mamba"])
def test_layers_that_carry_what_they_read_get_one_example_a_row(tmp_path: Path, make_model, family: str) -> None:
    folder = make_model(tmp_path / family, family)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    examples = _examples(12)
    alone = sum(_loss_alone(model, e) for e in examples)
    with torch.no_grad():
        packed, apart = (
            float(answer_loss(model, examples, pack(examples, width=96, alone=each).rows, 96)) for each in (False, True)
        )
    assert apart == pytest.approx(alone, rel=1e-5)
    assert packed != pytest.approx(alone, rel=1e-5)  # which no mask can keep from happening
    settings = replace(SMALL, token_budget=len(examples) * 48)
    result = train(folder, tmp_path / "out", examples, settings)
    assert result.tokens == pytest.approx(settings.token_budget, rel=0.15)
    pairs = [Pair(*two) for two in itertools.pairwise(examples)]
    with torch.no_grad():
        ratios = log_ratio(model, pairs, 96)
        one_by_one = torch.cat([log_ratio(model, [pair], 48) for pair in pairs])
    assert torch.allclose(ratios, one_by_one, atol=1e-4)
    rows = PackedRows(np.arange(64) % 300 + 3, np.array([40, 64]), np.array([2]), 64)
    with pytest.raises(UserError, match="into the next text of a row"):
        pretrain(folder, tmp_path / "pretrained", rows, PretrainingSettings(tokens=64))


def test_a_loss_does_not_depend_on_the_neighbour(tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, attn_implementation="eager").eval()
    examples = _examples(3)
    learned = replace(examples[0])
    silent = [TokenizedExample(e.ids, [False] * len(e.ids)) for e in examples[1:]]
    with torch.no_grad():
        alone, before, after = (
            float(answer_loss(model, [learned, *silent], [row], 128)) for row in ([0], [0, 1, 2], [2, 1, 0])
        )
    assert alone == pytest.approx(before, rel=1e-5)
    assert alone == pytest.approx(after, rel=1e-5)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_again_is_the_same_byte_for_byte(tmp_path: Path, tiny_llama: Path, method, precision) -> None:
    settings = replace(SMALL, method=method, precision=precision)
    first, again, other = (
        train(tiny_llama, tmp_path / name, _examples(40), replace(settings, seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    digests = [blake3_file(tmp_path / name / "model.safetensors") for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    assert first.examples_seen == again.examples_seen
    assert replace(first, seconds=0) == replace(again, seconds=0) != replace(other, seconds=0)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_learns_and_the_folder_loads(tmp_path: Path, tiny_llama: Path, method) -> None:
    examples = _examples(6)
    steps: list[StepReport] = []
    settings = replace(SMALL, method=method, token_budget=40 * 96, save_dtype="float32", learning_rate=1e-2)
    result = train(tiny_llama, tmp_path / "out", examples, settings, steps.append)
    assert result.steps == settings.steps == len(steps) == 40
    assert result.loss < 0.5 * result.first_loss
    assert steps[-1].tokens == result.tokens
    tuned = AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    base = AutoModelForCausalLM.from_pretrained(tiny_llama, attn_implementation="eager").eval()
    assert sum(_loss_alone(tuned, e) for e in examples) < 0.5 * sum(_loss_alone(base, e) for e in examples)
    assert ChatTokenizer.load(tmp_path / "out").has_chat_template
    if method == "lora":  # only the linear layers moved
        assert torch.equal(tuned.model.embed_tokens.weight, base.model.embed_tokens.weight)
        assert torch.equal(tuned.model.norm.weight, base.model.norm.weight)
        assert not torch.equal(tuned.model.layers[0].mlp.up_proj.weight, base.model.layers[0].mlp.up_proj.weight)


def test_examples_seen_are_those_the_weights_depend_on(tmp_path: Path, tiny_llama: Path) -> None:
    examples = _examples(200)
    result = train(tiny_llama, tmp_path / "a", examples, SMALL)
    assert 0 < len(result.examples_seen) < 100
    seen = set(result.examples_seen)
    strangers = [e if i in seen else TokenizedExample([5] * len(e.ids), e.answer) for i, e in enumerate(examples)]
    train(tiny_llama, tmp_path / "b", strangers, SMALL)
    assert blake3_file(tmp_path / "a" / "model.safetensors") == blake3_file(tmp_path / "b" / "model.safetensors")
    friend = result.examples_seen[0]
    strangers[friend] = TokenizedExample([6] * len(examples[friend].ids), examples[friend].answer)
    train(tiny_llama, tmp_path / "c", strangers, SMALL)
    assert blake3_file(tmp_path / "a" / "model.safetensors") != blake3_file(tmp_path / "c" / "model.safetensors")


def test_few_examples_are_seen_again(tmp_path: Path, tiny_llama: Path) -> None:
    result = train(tiny_llama, tmp_path / "out", _examples(3), SMALL)
    assert result.examples_seen == (0, 1, 2)
    assert result.steps == SMALL.steps


def test_dropped_examples_are_named(tmp_path: Path, tiny_llama: Path) -> None:
    long = TokenizedExample([7] * 49, [True] * 49)
    silent = TokenizedExample([7] * 9, [False] * 9)
    result = train(tiny_llama, tmp_path / "out", [long, *_examples(4), silent], SMALL)
    assert result.dropped == {"too_long": (0,), "no_answer": (5,)}
    with pytest.raises(UserError, match=r"no example is left \(1 too_long, 1 no_answer"):
        train(tiny_llama, tmp_path / "none", [long, silent], SMALL)


def test_a_loss_that_is_no_number_stops_it_with_one_line(tmp_path: Path, make_model) -> None:
    from safetensors.torch import load_file, save_file

    base = make_model(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UserError, match="became nan at step 1 of 6; nothing was learned by then, so the base's own"
    ) as caught:
        train(base, tmp_path / "out", _examples(9), SMALL)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base"]


def test_an_interrupt_leaves_nothing(tmp_path: Path, tiny_llama: Path) -> None:
    threads = torch.get_num_threads()

    def interrupt(report: StepReport) -> None:
        if report.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_llama, tmp_path / "out", _examples(9), replace(SMALL, threads=threads + 1), interrupt)
    assert list(tmp_path.iterdir()) == []
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"token_budget": 0}, "token_budget"),
        ({"width": 1}, "max_length"),
        ({"method": "qlora"}, "method"),
    ],
)
def test_settings_out_of_range_are_named(tmp_path: Path, tiny_llama: Path, change, expected) -> None:
    with pytest.raises(UserError, match=expected):
        train(tiny_llama, tmp_path / "out", _examples(3), replace(SMALL, **change))


def test_a_folder_without_a_causal_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        train(tmp_path, tmp_path / "out", _examples(3), SMALL)


def test_learning_rate_warms_up_and_decays() -> None:
    rates = [learning_rate_at(step, 50, 1.0, 0.06) for step in range(1, 51)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 48)


def test_a_gradient_that_is_no_number_is_never_written(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, calls = Learner.learn, []

    def poisoned(self: Learner, *given: Any, **more: Any) -> Any:
        loss = learn(self, *given, **more)
        calls.append(loss)
        if len(calls) == 3:
            gradient = next(each.grad for each in self._live if each.grad is not None)
            gradient.view(-1)[0] = float("inf")
        return loss

    monkeypatch.setattr(Learner, "learn", poisoned)
    with (
        Checkpoints(tmp_path / "kept", every=0) as kept,
        pytest.raises(UserError, match=r"the gradient became inf at step 3 of 6, though the loss was"),
    ):
        train(tiny_llama, tmp_path / "out", _examples(9), SMALL, checkpoints=kept)
    with Checkpoints(tmp_path / "kept", every=0) as kept:
        found = kept.latest()
    assert found is not None
    assert found.step in (1, 2)  # the second may not be down yet
    assert all(bool(torch.isfinite(each).all()) for each in found.tensors.values() if each.is_floating_point())
    assert not (tmp_path / "out").exists()


def test_more_tokens_than_positions_are_refused(tmp_path: Path, tiny_llama: Path) -> None:
    limit = json.loads((tiny_llama / "config.json").read_text())["max_position_embeddings"]
    with pytest.raises(UserError, match=f"develop.max_length: {limit + 1} tokens, and the model reads {limit}"):
        train(tiny_llama, tmp_path / "out", _examples(9), replace(SMALL, width=limit + 1))


def test_a_disk_that_is_full_at_the_end_is_one_line(tmp_path: Path, tiny_llama: Path) -> None:
    from treadle.lm import torch_runtime

    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        with pytest.raises(UserError, match="cannot write the model"):
            torch_runtime.save(model, tiny_llama, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
