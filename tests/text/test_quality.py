"""The classifier of good and bad texts: its features, its training, what it is said to be worth, and the filter."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from treadle.core.errors import Corrupt, UserError
from treadle.core.executors import Pool
from treadle.text.accounting import Accounting
from treadle.text.document import Document
from treadle.text.quality import Quality
from treadle.text.quality_features import LOOKED_AT, features_of
from treadle.text.quality_model import QualityModel, train
from treadle.text.quality_training import FEWEST, train_on, worth_of
from treadle.text.rules import rule_info
from treadle.text.transform import run_transforms

GOOD = "the committee of the town has found that people who read more books are of better cheer"
BAD = "click buy cheap now casino win free bonus login cart offer the a of sale"


def texts(words: str, count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(words.split(), k=draw.randint(10, 40))) for _ in range(count)]


def documents(side: str, given: list[str]) -> list[Document]:
    return [Document(f"doc:{side}{place:062}", side, str(place), text) for place, text in enumerate(given)]


def rows(given: list[str]) -> list[set[int]]:
    found = []
    for chunk in features_of(given):
        found += [set(row.tolist()) for row in np.split(chunk.buckets, chunk.starts[1:-1])]
    return found


def test_features_depend_on_the_text_alone() -> None:
    draw = random.Random(3)
    odd = ["", " ", "\n", "a", "\ud800 x", "\0", "ÄÖ 漢字", "x" * 300_000, "e" * LOOKED_AT + " tail"]
    given = odd + texts(GOOD, 3000, 1) + ["" for _ in range(500_000)] + texts(GOOD, 5, 2)
    together = rows(given)
    assert len(together) == len(given)
    for place in [*range(len(odd)), len(given) - 1, *draw.sample(range(len(given)), 50)]:
        assert together[place] == rows([given[place]])[0]
    assert rows([" \t "]) == [set()]
    assert len(rows(["one two"])[0]) == 3  # two words and their pair
    assert rows(["One  two 17"]) == rows(["one two 42"])
    assert rows(["one two"]) != rows(["two one"])
    assert rows(["e" * LOOKED_AT + " tail"]) == rows(["e" * LOOKED_AT])


def test_weights_are_where_the_loss_is_least() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    sparse = pytest.importorskip("scipy.sparse")
    good, bad = texts(GOOD, 60, 1), texts(BAD, 30, 2)
    model = train(good, bad)
    (chunk,) = features_of(good + bad)
    counts = np.diff(chunk.starts)
    matrix = sparse.csr_matrix((np.repeat(1 / np.sqrt(counts), counts), chunk.buckets, chunk.starts), (90, 1 << 18))
    weights = np.repeat([0.5 / 60, 0.5 / 30], [60, 30])
    peer = linear.LogisticRegression(C=90 / 0.1, tol=1e-8, max_iter=5000)
    peer.fit(matrix, [1] * 60 + [0] * 30, sample_weight=weights)
    expected = peer.predict_proba(matrix)[:, 1]
    assert np.abs(np.array(model.scores(good + bad)) - expected).max() < 0.02
    assert train(good, bad).weights.tobytes() == model.weights.tobytes()


def test_training_holds_out_and_tells() -> None:
    same = "stands on both sides and says nothing"
    good = documents("good", [*texts(GOOD, 100, 1), same])
    bad = documents("bad", [*texts(BAD, 100, 2), same])
    trained = train_on([*good, *good], bad)
    assert (trained.worth.good, trained.worth.bad) == (20, 20)
    assert trained.learned == 160
    assert trained.on_both_sides == 1
    assert len(set(trained.documents)) == 200
    assert good[-1].id not in trained.documents
    assert trained.worth.accuracy.value >= 0.95
    again = train_on(list(reversed(good)), bad)
    assert again.model.weights.tobytes() == trained.model.weights.tobytes()
    with pytest.raises(UserError, match=r"prepare.quality.bad: 19 different documents, 1 more .* at least 20"):
        train_on(good, [*bad[: FEWEST - 1], good[-1]])


def test_worth_against_published_figures() -> None:
    worth = worth_of([0.9, 0.8, 0.7, 0.4], [0.6, 0.3, 0.2, 0.4])
    assert worth.accuracy.value == 0.75
    assert worth.auc.value == pytest.approx((4 + 4 + 4 + 2.5) / 16)
    assert worth.auc.low < worth.auc.value < worth.auc.high <= 1
    perfect = worth_of([1.0] * 10, [0.0] * 10)
    assert (perfect.accuracy.value, perfect.auc.value, perfect.auc.high) == (1, 1, 1)
    assert perfect.accuracy.low == pytest.approx(0.8389, abs=1e-4)  # Wilson, 20 of 20
    assert 0.7 < perfect.auc.low < 1


def test_the_area_interval_covers() -> None:
    """Normal scores a distance apart whose area is known: the interval has it in about 95 of 100 samples."""
    draw = np.random.default_rng(5)
    area, covered = 0.8555, 0  # P(N(1.5, 1) > N(0, 1))
    for _ in range(600):
        found = worth_of(draw.normal(1.5, 1, 40).tolist(), draw.normal(0, 1, 60).tolist()).auc
        covered += found.low <= area <= found.high
    assert 0.92 <= covered / 600 <= 0.99


def test_the_filter_scores_and_drops(tmp_path: Path) -> None:
    model = train(texts(GOOD, 100, 1), texts(BAD, 100, 2))
    model.save(tmp_path, {})
    given = documents("good", texts(GOOD, 1200, 3)) + documents("bad", texts(BAD, 300, 4))
    accounting = Accounting()
    kept = [doc for shard in run_transforms([given], [Quality(tmp_path, 0.5)], accounting) for doc in shard]
    assert accounting.read == 1500 == accounting.kept + accounting.dropped["quality.score"]
    assert all(0.5 <= doc.fields["quality"] <= 1 for doc in kept)
    assert sum(doc.source == "good" for doc in kept) > 1150
    assert sum(doc.source == "bad" for doc in kept) < 30
    pooled = run_transforms([given], [Quality(tmp_path, 0.5)], Accounting(), Pool(2).map)
    assert [doc for shard in pooled for doc in shard] == kept
    assert "Brown et al. 2020" in rule_info("quality.score").source
    assert rule_info("quality.score").url


def test_a_damaged_classifier_is_told(tmp_path: Path) -> None:
    train(texts(GOOD, 30, 1), texts(BAD, 30, 2)).save(tmp_path, {"held_out": {}})
    assert QualityModel.load(tmp_path).scores(["the committee"])[0] > 0.5
    whole = (tmp_path / "weights.npy").read_bytes()
    for damaged in (whole[:-8], b"", b"\x93NUMPY junk", whole[:200]):
        (tmp_path / "weights.npy").write_bytes(damaged)
        with pytest.raises(Corrupt):
            QualityModel.load(tmp_path)
    np.save(tmp_path / "weights.npy", np.full(1 << 18, np.nan, dtype=np.float32))
    with pytest.raises(Corrupt, match="finite"):
        QualityModel.load(tmp_path)
    np.save(tmp_path / "weights.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(Corrupt):
        QualityModel.load(tmp_path)
    (tmp_path / "quality.json").write_text("{}")
    with pytest.raises(Corrupt):
        QualityModel.load(tmp_path)
