"""A real small encoder learns to tell two kinds of text apart."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from treadle.core.digest import blake3_file
from treadle.core.errors import UserError
from treadle.lm.base_model import resolve
from treadle.lm.classification import Classifier, train_classifier
from treadle.lm.fitting import FitSettings

SETTINGS = FitSettings(epochs=6, batch_size=8, learning_rate=3e-4, max_length=32, threads=1)
GOOD = ["wonderful", "great, loved it", "what a joy", "excellent food", "best film in years", "so happy with this"]
BAD = ["terrible", "awful, hated it", "what a bore", "horrible food", "worst film in years", "so angry about this"]
TEXTS = GOOD + BAD
LABELS = ["good"] * len(GOOD) + ["bad"] * len(BAD)


@pytest.fixture(scope="module")
def encoder() -> Path:
    return resolve("all-minilm-l6-v2").path


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("classifier") / "model"
    result = train_classifier(encoder, out, TEXTS, LABELS, SETTINGS)
    assert result.labels == ("bad", "good")
    assert result.steps == 12
    assert result.truncated == 0
    return out


def test_it_learns(trained: Path) -> None:
    classifier = Classifier(trained, threads=1)
    assert classifier.labels == ("bad", "good")
    for text, label in zip(TEXTS, LABELS, strict=True):
        (row,) = classifier.predict([text])
        assert classifier.labels[row.index(max(row))] == label


def test_probabilities_keep_their_text_whatever_the_batch(trained: Path) -> None:
    texts = ["", "great", "horrible " * 200, "x", *TEXTS]
    rows = Classifier(trained, batch_size=3, threads=1).predict(texts)
    assert [sum(row) for row in rows] == pytest.approx([1.0] * len(texts))
    alone = [Classifier(trained, batch_size=1, threads=1).predict([text])[0] for text in texts[:4]]
    for row, expected in zip(rows, alone, strict=False):
        assert row == pytest.approx(expected, abs=1e-4)
    assert Classifier(trained, threads=1).predict([]) == []


def test_the_same_again_is_the_same_byte_for_byte(encoder: Path, trained: Path, tmp_path: Path) -> None:
    train_classifier(encoder, tmp_path / "again", TEXTS, LABELS, SETTINGS)
    train_classifier(encoder, tmp_path / "other", TEXTS, LABELS, replace(SETTINGS, seed=1))
    digests = [blake3_file(path / "model.safetensors") for path in (trained, tmp_path / "again", tmp_path / "other")]
    assert digests[0] == digests[1] != digests[2]


def test_long_texts_are_cut_and_counted(encoder: Path, tmp_path: Path) -> None:
    texts = [*TEXTS, "long " * 100]
    result = train_classifier(encoder, tmp_path / "m", texts, [*LABELS, "bad"], replace(SETTINGS, epochs=1))
    assert result.truncated == 1


def test_a_loss_that_is_no_number_stops_it_with_one_line(encoder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = shutil.copytree(encoder, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["embeddings.LayerNorm.bias"][:] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="became nan at step 1 of 12"):
        train_classifier(base, tmp_path / "m", TEXTS, LABELS, SETTINGS)
    assert not (tmp_path / "m").exists()


def test_bad_input_is_named(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least two different labels"):
        train_classifier(encoder, tmp_path / "m", GOOD, ["good"] * len(GOOD), SETTINGS)
    with pytest.raises(UserError, match="learning_rate: nan is out of range"):
        train_classifier(encoder, tmp_path / "m", TEXTS, LABELS, replace(SETTINGS, learning_rate=float("nan")))
    assert not (tmp_path / "m").exists()
    with pytest.raises(UserError, match=r"no config\.json"):
        Classifier(tmp_path)
