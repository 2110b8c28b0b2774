"""A student begins as some of its teacher's layers, comes near to what the teacher thinks, the same way each time."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BertConfig

from treadle.core.digest import blake3_file
from treadle.core.errors import UserError
from treadle.lm.base_model import resolve
from treadle.lm.distillation import DistillSettings, distill_classifier, soft_loss, student_loss
from treadle.lm.distilled_generator import distill_generator, generator_loss
from treadle.lm.fewer_layers import evenly, with_layers
from treadle.lm.packing import TokenizedExample

SETTINGS = DistillSettings(
    learning_rate=2e-3, epochs=12, max_length=16, seed=3, batch_size=8, threads=1, precision="float32"
)
TEXTS = ["wonderful", "great, loved it", "what a joy", "terrible", "awful, hated it", "what a bore"] * 4
LABELS = (["good"] * 3 + ["bad"] * 3) * 4


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of six thin layers with random weights, which has opinions all the same."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        id2label={0: "bad", 1: "good"},
        label2id={"bad": 0, "good": 1},
        initializer_range=0.2,
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    shutil.copyfile(resolve("all-minilm-l6-v2").path / "tokenizer.json", folder / "tokenizer.json")
    return folder


def test_layers_are_those_of_distilbert() -> None:
    assert evenly(12, 6) == [0, 2, 4, 7, 9, 11]
    assert evenly(6, 3) == [0, 3, 5]
    assert (evenly(4, 4), evenly(4, 1)) == ([0, 1, 2, 3], [0])
    with pytest.raises(UserError, match="7 of the teacher's 6 layers; expected 1 to 6"):
        evenly(6, 7)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt2"])
def test_all_layers_are_the_same_model_and_one_is_half_of_it(tmp_path: Path, make_model: Any, family: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path / family, family)).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        whole, same, half = (each(input_ids=ids).logits for each in (
            model, with_layers(model, [0, 1]).eval(), with_layers(model, [1]).eval()
        ))  # fmt: skip
    assert torch.allclose(whole, same)
    assert not torch.allclose(whole, half)
    assert with_layers(model, [1]).config.num_hidden_layers == 1


def test_a_student_comes_near_its_teacher(teacher: Path, tmp_path: Path) -> None:
    losses: list[float] = []
    settings = replace(SETTINGS, hard=0.0)
    result = distill_classifier(
        teacher, tmp_path / "out", TEXTS, LABELS, settings, lambda told: losses.append(told.loss)
    )
    assert result.environment["layers"] == [0, 3, 5]
    assert len(losses) == result.steps == 36
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert student.config.num_hidden_layers == 3
    assert student.config.id2label == {0: "bad", 1: "good"}
    distill_classifier(teacher, tmp_path / "again", TEXTS, LABELS, settings)
    assert blake3_file(tmp_path / "again" / "model.safetensors") == blake3_file(tmp_path / "out" / "model.safetensors")


def test_the_teacher_itself_has_nothing_to_learn_from_itself(teacher: Path, tiny_llama: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(teacher).eval()
    inputs = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.tensor([[1, 1, 0]])}
    settings = replace(SETTINGS, hard=0.0)
    loss, _ = student_loss(model, model, inputs, torch.tensor([0]), settings, 2)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)
    generator = AutoModelForCausalLM.from_pretrained(tiny_llama, attn_implementation="eager").eval()
    example = TokenizedExample([5, 6, 7, 8], [False, True, True, True])
    assert float(generator_loss(generator, generator, [example], [(0,)], settings).detach()) == pytest.approx(
        0, abs=1e-5
    )


def test_soft_targets_keep_the_size_of_their_gradient() -> None:
    told = torch.tensor([[2.0, 0.0, -1.0]])
    sizes = []
    for temperature in (50.0, 100.0):  # far beyond the logits, where the gradient no longer depends on it
        found = torch.zeros(1, 3, requires_grad=True)
        soft_loss(found, told, temperature).sum().backward()
        assert found.grad is not None
        sizes.append(float(found.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=told), torch.distributions.Categorical(logits=torch.zeros(1, 3))
    )
    assert float(soft_loss(torch.zeros(1, 3), told, 1.0)) == pytest.approx(float(expected), abs=1e-5)


def test_a_generator_learns_from_a_larger_one(tiny_llama: Path, tmp_path: Path) -> None:
    examples = [TokenizedExample([1, 10 + n, 20 + n, 30 + n, 2], [False, False, True, True, True]) for n in range(24)]
    losses: list[float] = []
    settings = replace(SETTINGS, epochs=20, max_length=24, hard=0.0)
    result = distill_generator(tiny_llama, tmp_path / "out", examples, settings, lambda told: losses.append(told.loss))
    assert result.environment["layers"] == [0]
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.num_hidden_layers == 1
    distill_generator(tiny_llama, tmp_path / "again", examples, settings)
    assert blake3_file(tmp_path / "again" / "model.safetensors") == blake3_file(tmp_path / "out" / "model.safetensors")


def test_what_cannot_be_is_said(teacher: Path, tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the teacher does not know the label 'ugly'"):
        distill_classifier(teacher, tmp_path / "a", TEXTS, ["ugly", *LABELS[1:]], SETTINGS)
    with pytest.raises(UserError, match=r"develop\.distill\.temperature: 0 is out of range"):
        distill_classifier(teacher, tmp_path / "a", TEXTS, LABELS, replace(SETTINGS, temperature=0))
    with pytest.raises(UserError, match=r"no example is left; raise develop\.max_length above 16"):
        distill_generator(tiny_llama, tmp_path / "a", [TokenizedExample([5] * 20, [True] * 20)], SETTINGS)
    assert not (tmp_path / "a").exists()
