"""A model whose table of words is narrow while it trains learns what it would have learned with the whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tiny_models import write_encoder
from treadle.lm import taught
from treadle.lm.classification import Encoder, train_classifier
from treadle.lm.fitting import FitSettings
from treadle.lm.word_table import WordTable, table_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = ["good kettle", "bad lamp", "good radio", "bad tent"]
LABELS = ["good", "bad", "good", "bad"]
NEVER = "zebra xylophone quartz"  # words of the tokenizer that no text has
SETTINGS = FitSettings(epochs=4, batch_size=2, learning_rate=1e-3, max_length=16, threads=1, weight_decay=0.0)
TABLE = "bert.embeddings.word_embeddings.weight"


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "encoder", [*TEXTS, NEVER])


def _model(folder: Path) -> Any:
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_learns_what_the_whole_table_would(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    settings = replace(SETTINGS, precision=precision)
    narrow: list[float] = []
    train_classifier(encoder, tmp_path / "narrow", TEXTS, LABELS, settings, lambda p: narrow.append(p.loss))
    monkeypatch.setattr(taught, "WordTable", lambda _texts: WordTable(None))
    whole: list[float] = []
    train_classifier(encoder, tmp_path / "whole", TEXTS, LABELS, settings, lambda p: whole.append(p.loss))
    assert narrow == pytest.approx(whole, abs=1e-6)
    ours, theirs = (_model(tmp_path / name).state_dict() for name in ("narrow", "whole"))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.allclose(ours[name], tensor, atol=1e-6), name


def test_what_no_text_has_stays_as_the_base_had_it(encoder: Path, tmp_path: Path) -> None:
    train_classifier(encoder, tmp_path / "out", TEXTS, LABELS, replace(SETTINGS, weight_decay=0.1))
    before, after = (_model(folder).state_dict()[TABLE] for folder in (encoder, tmp_path / "out"))
    seen = {id_ for row in Encoder(encoder, 16)(TEXTS)[0] for id_ in row}
    never = {id_ for row in Encoder(encoder, 16)([NEVER])[0] for id_ in row} - seen
    assert never
    assert torch.equal(before[sorted(never)], after[sorted(never)])
    assert all(not torch.equal(before[id_], after[id_]) for id_ in seen)


def test_a_word_it_was_not_told_of_is_no_other_word(encoder: Path) -> None:
    model = _model(encoder)
    told, untold = (torch.tensor([row]) for row in Encoder(encoder, 16)([TEXTS[0], NEVER])[0])
    expected = [model(ids).logits for ids in (told, untold)]
    rows = len(model.get_input_embeddings().weight)
    table = WordTable([told[0].tolist()])
    narrow = table.narrow(model)
    words = table_of(narrow)
    assert words is not None
    assert len(words.weight) < rows
    assert torch.equal(narrow(told).logits, expected[0])
    with pytest.raises(IndexError):
        narrow(untold)
    whole = table.widen(narrow)
    assert len(whole.get_input_embeddings().weight) == rows
    assert torch.equal(whole(untold).logits, expected[1])
