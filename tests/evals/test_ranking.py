"""Places of references among all references, and what is made of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from treadle.evals.item import Item, Output
from treadle.evals.ranking import SHOWN, mrr, nearest, recall_at_1, recall_at_10, tfidf_ranking
from treadle.text.dataset import Example


def items(references: list[str]) -> list[Item]:
    return [Item(str(place), reference=reference) for place, reference in enumerate(references)]


def test_places_by_hand() -> None:
    pool = [f"text {place:02}" for place in range(12)]
    cosines = -np.tile(np.arange(12.0), (4, 1))  # the first is the nearest, the last the farthest
    outputs = nearest(cosines, pool)
    asked = items([pool[0], pool[1], pool[9], pool[10]])
    assert [len(output.probabilities) for output in outputs] == [SHOWN] * 4
    assert {output.text for output in outputs} == {pool[0]}
    assert recall_at_1(asked, outputs) == [1, 0, 0, 0]
    assert recall_at_10(asked, outputs) == [1, 1, 1, 0]
    assert mrr(asked, outputs) == pytest.approx([1, 1 / 2, 1 / 10, 0])


def test_recall_is_scikit_learns_top_k_accuracy() -> None:
    chance = np.random.default_rng(3)
    pool, cosines = [f"{place:03}" for place in range(40)], chance.normal(size=(200, 40))
    right = chance.integers(0, 40, 200)
    outputs, asked = nearest(cosines, pool), items([pool[place] for place in right])
    for k, metric in ((1, recall_at_1), (10, recall_at_10)):
        theirs = top_k_accuracy_score(right, cosines, k=k, labels=range(40))
        assert np.mean(metric(asked, outputs)) == pytest.approx(theirs)


def test_equally_near_ones_come_by_their_order() -> None:
    (output,) = nearest(np.zeros((1, 3)), ["a", "b", "c"])
    assert (output.text, list(output.probabilities)) == ("a", ["a", "b", "c"])


def test_shared_words_are_found() -> None:
    train = [
        Example(("d",), messages=({"role": "user", "content": "a lost card"}, {"role": "assistant", "content": "card"}))
    ]
    asked = [
        Item("1", messages=({"role": "user", "content": "lost"},), reference="a lost thing"),
        Item("2", messages=({"role": "user", "content": "the card"},), reference="a card"),
        Item("3", messages=({"role": "user", "content": "nothing known"},), reference="unseen"),
    ]
    outputs = tfidf_ranking(train, asked, seed=0)
    assert [output.text for output in outputs[:2]] == ["a lost thing", "a card"]
    assert set(outputs[2].probabilities.values()) == {0.0}
    assert recall_at_1([], []) == []
    assert isinstance(outputs[0], Output)
