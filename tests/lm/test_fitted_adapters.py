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
from tiny_models import write_encoder_decoder
from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.classification import Classifier, train_classifier
from treadle.lm.fitting import FitSettings
from treadle.lm.joined_team import JoinedTeam
from treadle.lm.learner import AdamW, Adapted, LoraLearner
from treadle.lm.sequence_to_sequence import train_sequences
from treadle.lm.sharded import Sharded

SETTINGS = FitSettings(
    3e-3, epochs=12, max_length=32, batch_size=8, threads=1, precision="float32", method="lora", lora_rank=4
)
TEXTS = [f"{word} {other}" for word in ("value", "object") for other in ("user", "function", "returns", "system")] * 4
LABELS = [text.split()[0] for text in TEXTS]


@pytest.mark.parametrize("kind", [kind for kind in killed_training.KINDS if "'" in kind])
def test_linear_layers_and_what_is_new_move_and_nothing_else(
    tmp_path: Path, begun: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[str], dict[str, torch.Tensor]]] = []
    real = LoraLearner.__init__

    def noted(self: LoraLearner, model: Any, *given: Any, **more: Any) -> None:
        parts = Adapted.of(model)
        before = {name: each.detach().clone() for name, each in model.named_parameters()}
        seen.append(({f"{name}.weight" for name in parts.layers} | set(parts.heads), before))
        real(self, model, *given, **more)

    monkeypatch.setattr(LoraLearner, "__init__", noted)
    base = begun[killed_training.KINDS[kind]]
    killed_training.training_of(kind, base, tmp_path / "out", 12, watched=False)()
    assert not (tmp_path / "out" / "adapter").exists()
    ((expected, before),) = seen
    after = load_file(tmp_path / "out" / "model.safetensors")
    # Of the table of words only the rows that occur were before it.
    assert {
        name for name, old in before.items() if "word" not in name and not torch.equal(old, after[name])
    } == expected
    assert any("head" in name or "classifier" in name or "outputs" in name for name in expected) is (
        kind[:3] in ("cla", "tag", "rea")
    )
    held = load_file(base / "model.safetensors")
    table = next(name for name in after if name.endswith(("word_embeddings.weight", "shared.weight")))
    assert torch.equal(after[table], held[next(name for name in held if table.endswith(name))])


@pytest.mark.parametrize("family", ["bart", "marian"])
def test_the_head_that_says_words_stays_as_it_is(tmp_path: Path, family: str) -> None:
    base = write_encoder_decoder(tmp_path / family, family)
    sources = ["value user", "object system", "function returns"] * 4
    train_sequences(base, tmp_path / "out", sources, sources[::-1], "", replace(SETTINGS, epochs=2))
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    moved = {name for name, tensor in after.items() if name in before and not torch.equal(before[name], tensor)}
    assert len(moved) >= 16
    assert not any(part in name for name in moved for part in ("lm_head", "shared", "embed", "norm", "bias"))


def test_before_the_head_of_a_generator_is_a_layer_like_others() -> None:
    config = transformers.RobertaConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, is_decoder=True
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    parts = Adapted.of(model)
    assert not parts.heads  # the adapter that is kept beside the base would not have them
    assert "lm_head.dense" in parts.layers
    assert "lm_head.decoder" not in parts.layers


def test_what_a_checkpoint_did_not_have_is_learned_whole(tmp_path: Path, begun: dict[str, Path]) -> None:
    read = transformers.AutoModelForMaskedLM.from_pretrained(begun["bert"])  # as pretraining leaves one: no pooler
    read.save_pretrained(tmp_path / "read")
    model = torch_runtime.load(tmp_path / "read", transformers.AutoModelForSequenceClassification, num_labels=3)
    parts = Adapted.of(model)
    pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert set(parts.heads) == {"classifier.weight", "classifier.bias"} | pooler
    assert "bert.pooler.dense" not in parts.layers


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
