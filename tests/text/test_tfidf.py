"""TF-IDF as files: what scikit-learn reads is what the baseline learns from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import load_npz
from sklearn.linear_model import LogisticRegression

from treadle.core.errors import UserError
from treadle.evals.baselines import tfidf
from treadle.evals.item import Item
from treadle.text.dataset import Example
from treadle.text.tfidf import write_features

WORDS = {"loan": "money rate bank interest card", "farm": "cow field wheat barn tractor"}


def rows(count: int, seed: int) -> list[Example]:
    draw = np.random.default_rng(seed)
    labels = [sorted(WORDS)[number % 2] for number in range(count)]
    texts = [" ".join(draw.choice([*WORDS[label].split(), "the", "and"], 9)) for label in labels]
    return [
        Example((f"doc:{number}",), text=text, label=label)
        for number, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]


def test_a_model_of_the_files_is_the_baseline(tmp_path: Path) -> None:
    splits = {"train": rows(60, 1), "test": rows(21, 2), "validation": [], "holdout": []}
    written = write_features(tmp_path, splits.__getitem__, words=2, vocabulary=200_000)
    matrix, tested = load_npz(tmp_path / "train.npz"), load_npz(tmp_path / "test.npz")
    vocabulary = json.loads((tmp_path / "vocabulary.json").read_text())
    about = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in splits}
    assert written == {"rows": 81, "columns": len(vocabulary)}
    assert (matrix.shape, tested.shape) == ((60, len(vocabulary)), (21, len(vocabulary)))
    assert load_npz(tmp_path / "holdout.npz").shape == (0, len(vocabulary))
    assert about["train"]["examples"] == [each.id for each in splits["train"]]
    model = LogisticRegression(C=10.0, max_iter=1_000, random_state=5).fit(matrix, about["train"]["labels"])
    items = [Item(each.id, text=each.text) for each in splits["test"]]
    expected = [output.probabilities for output in tfidf(splits["train"], items, seed=5)]
    found = [dict(zip(model.classes_, row, strict=True)) for row in model.predict_proba(tested).tolist()]
    assert found == expected
    idf = np.load(tmp_path / "idf.npy", allow_pickle=False)
    has = np.asarray((matrix > 0).sum(axis=0)).ravel()
    np.testing.assert_allclose(idf, np.log(61 / (1 + has)) + 1)


def test_the_files_are_the_same_each_time_and_no_pickles(tmp_path: Path) -> None:
    splits = {"train": rows(30, 1), "validation": rows(5, 2), "test": rows(5, 3), "holdout": []}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_features(tmp_path / name, splits.__getitem__, words=1, vocabulary=8)
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert len(names) == 11
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    with np.load(tmp_path / "first" / "train.npz", allow_pickle=False) as arrays:
        assert {arrays[name].dtype.hasobject for name in arrays.files} == {False}
    assert len(json.loads((tmp_path / "first" / "vocabulary.json").read_text())) == 8


def test_texts_without_words_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no words to count"):
        write_features(
            tmp_path, {"train": [Example(("doc:1",), text="!", label="a")]}.__getitem__, words=2, vocabulary=9
        )
