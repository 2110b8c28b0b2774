"""Preferences: the loss of the paper, the same as TRL's, the same weights every time, nothing of no use learned."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from treadle.core.digest import blake3_file
from treadle.core.errors import UserError
from treadle.lm.answer_pairs import Pair, log_probabilities, pair_of, preference_loss
from treadle.lm.course import StepReport
from treadle.lm.packing import TokenizedExample
from treadle.lm.preference import PreferenceSettings, train_on_preferences

VOCABULARY = 320
SMALL = PreferenceSettings(
    epochs=2, batch=4, width=64, learning_rate=1e-3, threads=1, precision="float32", save_dtype="float32"
)


def _pairs(count: int, seed: int = 0) -> list[Pair]:
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        question = [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(3, 12))]
        ways = []
        for first in (10, 11):  # what is wanted begins with another token, which can be learned
            answer = [first, *(draw.randrange(3, VOCABULARY) for _ in range(draw.randint(1, 8)))]
            ids = question + answer
            ways.append(TokenizedExample(ids, [at >= len(question) for at in range(len(ids))]))
        found.append(pair_of(*ways))
    return found


def _loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def _alone(model: Any, example: TokenizedExample) -> float:
    """Log-probability of an answer by transformers' own loss."""
    labels = torch.tensor([[t if a else -100 for t, a in zip(example.ids, example.answer, strict=True)]])
    with torch.no_grad():
        loss = model(input_ids=torch.tensor([list(example.ids)]), labels=labels).loss
    return -float(loss) * sum(example.answer[1:])


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_packed_log_probabilities_are_those_of_each_alone(tmp_path: Path, make_model, family: str) -> None:
    model = _loaded(make_model(tmp_path / family, family))
    examples = [side for pair in _pairs(4) for side in (pair.chosen, pair.rejected)]
    rows = [(3, 0, 5), (7, 1), (2, 4, 6)]
    with torch.no_grad():
        packed = log_probabilities(model, examples, rows, 96).tolist()
    assert packed == pytest.approx([_alone(model, example) for example in examples], rel=1e-4)


def test_what_both_begin_with_is_not_compared() -> None:
    chosen = TokenizedExample([1, 2, 3, 4, 5], [False, True, True, True, True])
    rejected = TokenizedExample([1, 2, 3, 9], [False, True, True, True])
    pair = pair_of(chosen, rejected)
    assert list(pair.chosen.answer) == [False, False, False, True, True]
    assert list(pair.rejected.answer) == [False, False, False, True]


def test_it_begins_at_chance_and_learns_to_tell_them_apart(tmp_path: Path, tiny_llama: Path) -> None:
    told: list[StepReport] = []
    settings = replace(SMALL, epochs=6)
    result = train_on_preferences(tiny_llama, tmp_path / "out", _pairs(32), _pairs(16, seed=1), settings, told.append)
    assert told[0].loss == pytest.approx(0.6931, abs=1e-3)  # log 2: the model is what it was
    assert told[0].figures["margin"] == pytest.approx(0, abs=1e-4)
    assert result.loss < 0.5
    assert result.accuracy > 0.8
    assert result.held_out is not None
    assert result.held_out[1] > 0.8
    assert result.pairs_seen == tuple(range(32))
    old, new = _loaded(tiny_llama), _loaded(tmp_path / "out")
    gained = [
        _alone(new, pair.chosen) - _alone(new, pair.rejected) - _alone(old, pair.chosen) + _alone(old, pair.rejected)
        for pair in _pairs(32)
    ]
    assert sum(gained) / len(gained) * SMALL.beta == pytest.approx(result.margin, rel=0.2)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_same_again_is_the_same_byte_for_byte(tmp_path: Path, tiny_llama: Path, method: Any) -> None:
    settings = replace(SMALL, method=method, epochs=1)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_on_preferences(tiny_llama, tmp_path / name, _pairs(12), (), replace(settings, seed=seed))
    digests = [blake3_file(tmp_path / name / "model.safetensors") for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


def test_a_budget_of_tokens_ends_it(tmp_path: Path, tiny_llama: Path) -> None:
    pairs = _pairs(12)
    size = sum(pair.tokens for pair in pairs)
    result = train_on_preferences(tiny_llama, tmp_path / "out", pairs, (), replace(SMALL, tokens=size * 3 // 2))
    assert 3 < result.steps < 6
    assert size * 3 // 2 <= result.tokens < size * 2


def test_what_cannot_be_learned_is_left_out_and_said(tmp_path: Path, tiny_llama: Path) -> None:
    long = Pair(TokenizedExample([5] * 70, [True] * 70), TokenizedExample([5, 6], [False, True]))
    mute = Pair(TokenizedExample([5, 6], [False, False]), TokenizedExample([5, 7], [False, False]))
    result = train_on_preferences(tiny_llama, tmp_path / "out", [long, *_pairs(4), mute], (), replace(SMALL, epochs=1))
    assert result.dropped == {"too_long": (0,), "no_answer": (5,)}
    assert result.pairs_seen == (1, 2, 3, 4)
    with pytest.raises(
        UserError, match=r"no pair is left \(1 too_long, 1 no_answer\); raise develop.max_length above 64"
    ):
        train_on_preferences(tiny_llama, tmp_path / "none", [long, mute], (), SMALL)


def test_a_loss_that_is_no_number_stops_it(tmp_path: Path, tiny_llama: Path) -> None:
    broken = _loaded(tiny_llama)
    broken.model.norm.weight.data.fill_(float("nan"))
    shutil.copytree(tiny_llama, tmp_path / "broken")
    broken.save_pretrained(tmp_path / "broken")
    with pytest.raises(UserError, match=r"the loss became nan at step 1 of 6; nothing was learned by then"):
        train_on_preferences(tmp_path / "broken", tmp_path / "out", _pairs(12), (), SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_loss_and_gradient_are_those_of_trl(tmp_path: Path, make_model: Callable[..., Path]) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    policy, reference = (make_model(tmp_path / name, "llama", seed) for name, seed in (("policy", 1), ("reference", 2)))
    rows = [
        {"prompt": "the value of ", "chosen": f"object {n} returns", "rejected": f"function {n}" * (1 + n % 3)}
        for n in range(6)
    ]
    arguments = DPOConfig(
        output_dir=str(tmp_path / "trl"),
        per_device_train_batch_size=6,
        beta=0.3,
        report_to=[],
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        max_length=None,
    )
    theirs = _loaded(policy)
    trainer = DPOTrainer(
        theirs,
        _loaded(reference),
        arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(policy),
    )
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.model.eval()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()

    def example(row: int) -> TokenizedExample:
        size = int(batch["attention_mask"][row].sum())
        return TokenizedExample(
            batch["input_ids"][row, :size].tolist(), batch["completion_mask"][row, :size].bool().tolist()
        )

    pairs = [pair_of(example(row), example(row + 6)) for row in range(6)]
    ours, old = _loaded(policy), _loaded(reference)
    before = [_alone(old, pair.chosen) - _alone(old, pair.rejected) for pair in pairs]
    losses, _ = preference_loss(ours, pairs, before, 0.3, 128)
    mean = losses.mean()
    mean.backward()
    assert float(mean.detach()) == pytest.approx(float(loss.detach()), abs=1e-4)
    assert float(mean.detach()) != pytest.approx(0.6931, abs=1e-2)
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    one = torch.cat([parameter.grad.flatten() for _, parameter in ours.named_parameters()])
    other = torch.cat([wanted[name].flatten() for name, _ in ours.named_parameters()])
    assert float(torch.nn.functional.cosine_similarity(one, other, dim=0)) > 1 - 1e-4
    assert float(one.norm()) == pytest.approx(float(other.norm()), rel=1e-3)
