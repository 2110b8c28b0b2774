"""Adapters beside an encoder or an encoder-decoder, and the new head: learned, merged, an ordinary model after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

import killed_training
from treadle.core.errors import UserError
from treadle.lm.classification import Classifier, train_classifier
from treadle.lm.fitting import FitSettings
from treadle.lm.joined_team import JoinedTeam
from treadle.lm.learner import AdamW, Adapted, LoraLearner
from treadle.lm.sharded import Sharded

SETTINGS = FitSettings(
    3e-3, epochs=12, max_length=32, batch_size=8, threads=1, precision="float32", method="lora", lora_rank=4
)
TEXTS = [f"{word} {other}" for word in ("value", "object") for other in ("user", "function", "returns", "system")] * 4
LABELS = [text.split()[0] for text in TEXTS]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("kind", [kind for kind in killed_training.KINDS if "'" in kind])
def test_linear_layers_and_what_is_new_move_and_nothing_else(tmp_path: Path, begun: dict[str, Path], kind: str) -> None:
    base = begun[killed_training.KINDS[kind]]
    killed_training.training_of(kind, base, tmp_path / "out", 12, watched=False)()
    before, after = _weights(base), _weights(tmp_path / "out")
    assert not (tmp_path / "out" / "adapter").exists()
    # A model without a head has its names without the body's before them.
    known = {name.removeprefix("bert."): tensor for name, tensor in before.items()}
    moved, kept = set(), set()
    for name, tensor in after.items():
        old = known.get(name.removeprefix("bert."))
        if old is not None:
            (kept if torch.equal(old, tensor) else moved).add(name)
    assert moved
    assert all(name.endswith(".weight") and after[name].ndim == 2 for name in moved)
    assert not any("embed" in name or "norm" in name.lower() or name == "shared.weight" for name in moved)
    assert any("bias" in name or "norm" in name.lower() for name in kept)


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_classifier_learns_by_adapters_and_its_head(
    tmp_path: Path, begun: dict[str, Path], family: str, precision: Any
) -> None:
    settings = replace(SETTINGS, precision=precision)
    result = train_classifier(begun[family], tmp_path / "out", TEXTS, LABELS, settings)
    classifier = Classifier(tmp_path / "out", threads=1)
    rows = classifier.predict(TEXTS)
    said = [classifier.labels[max(range(2), key=row.__getitem__)] for row in rows]
    assert said == LABELS
    assert result.loss < 0.3
    heads = [name for name in _weights(tmp_path / "out") if name.startswith(("classifier.", "score."))]
    assert heads


def test_how_many_numbers_are_learned(begun: dict[str, Path]) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(begun["bert"], num_labels=3)
    whole = sum(p.numel() for p in model.parameters())
    width = model.config.hidden_size
    parts = Adapted.of(model)
    assert set(parts.heads) == {"classifier.weight", "classifier.bias"}
    assert "classifier" not in parts.layers
    expected = sum(4 * (layer.in_features + layer.out_features) for layer in parts.layers.values()) + 3 * (width + 1)
    learner = LoraLearner(model, AdamW(1e-3, 1.0, 0.0, torch.float32), rank=4, alpha=8.0)
    assert learner.size == expected < whole / 4


def test_before_the_first_step_the_model_says_what_it_said(begun: dict[str, Path]) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(begun["bert"], num_labels=3).eval()
    ids = torch.tensor([[3, 4, 5, 6]])
    before = model(input_ids=ids).logits
    learner = LoraLearner(model, AdamW(1e-3, 1.0, 0.0, torch.float32), rank=4, alpha=8.0)
    assert torch.equal(model(input_ids=ids).logits, before)
    learner.finish()
    assert torch.equal(model(input_ids=ids).logits, before)


def test_a_model_that_is_cut_among_processes_is_refused(tmp_path: Path, begun: dict[str, Path]) -> None:
    team = JoinedTeam(0, 2, Sharded(), "cpu")
    with pytest.raises(UserError, match="lora needs a strategy that keeps the model whole; take ddp"):
        train_classifier(begun["bert"], tmp_path / "out", TEXTS, LABELS, SETTINGS, team=team)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("change", "named"), [({"method": "qlora"}, "method"), ({"lora_rank": 0}, "lora_rank")])
def test_what_is_out_of_range_is_named(tmp_path: Path, begun: dict[str, Path], change: Any, named: str) -> None:
    with pytest.raises(UserError, match=f"develop.{named}"):
        train_classifier(begun["bert"], tmp_path / "out", TEXTS, LABELS, replace(SETTINGS, **change))
