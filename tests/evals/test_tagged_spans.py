"""Scores of spans: by hand, and as sets of all spans say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.core.errors import UserError
from treadle.evals.item import Item, Output
from treadle.evals.metric import load_metric, score_rows
from treadle.evals.tasks.tag import TASK, dictionary
from treadle.text.dataset import Example
from treadle.text.spans import label_of, read_label

TEXT = "Ann Lee saw Paris and Rome"
TAGS = st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"]), min_size=4, max_size=4)


def scored(metric: str, pairs: list[tuple[str, str]]) -> float:
    loaded = load_metric(metric)
    items = [Item(str(i), text=TEXT, reference=reference) for i, (reference, _) in enumerate(pairs)]
    rows = score_rows(loaded, items, [Output(text=found) for _, found in pairs])
    return float(loaded.reduce(rows.sum(axis=0)))


def test_a_span_counts_when_all_of_it_is_right() -> None:
    true = '[[0,7,"PER"],[12,17,"LOC"],[22,26,"LOC"]]'
    assert scored("span_f1", [(true, true)]) == 1.0
    assert (
        scored("span_f1", [("[]", "[]")])
        == scored("span_f1", [(true, "[]")])
        == scored("span_f1", [("[]", true)])
        == 0.0
    )
    found = '[[0,3,"PER"],[12,17,"PER"],[22,26,"LOC"]]'  # one is short, one of another type, one right
    assert scored("span_f1", [(true, found)]) == pytest.approx(1 / 3)
    assert scored("span_f1", [(true, found), (true, true)]) == pytest.approx(4 / 6)  # over all spans, not the texts
    assert scored("token_accuracy", [(true, found)]) == pytest.approx(4 / 6)
    assert scored("token_accuracy", [(true, true), (true, "[]")]) == pytest.approx(8 / 12)


@given(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=5))
def test_span_f1_is_that_of_the_entities_that_conlleval_counts(pairs: list[tuple[list[str], list[str]]]) -> None:
    """Against an own reading of the tags, entity by entity, as conlleval does it: an I of another type begins one."""

    def entities(place: int, tags: list[str]) -> set[tuple[int, int, int, str]]:
        found, start = set(), None
        for at, tag in enumerate([*tags, "O"]):
            ends = start is not None and (tag == "O" or tag[0] == "B" or tag[2:] != tags[at - 1][2:])
            if ends and start is not None:
                found.add((place, start, at, tags[start][2:]))
                start = None
            if tag != "O" and start is None:
                start = at
        return found

    words = ["w"] * 4
    true = set().union(*(entities(i, first) for i, (first, _) in enumerate(pairs)))
    said = set().union(*(entities(i, second) for i, (_, second) in enumerate(pairs)))
    met = len(true) + len(said)
    from treadle.text.spans import from_tags

    labels = [(label_of(from_tags(words, a)[1]), label_of(from_tags(words, b)[1])) for a, b in pairs]
    assert scored("span_f1", labels) == pytest.approx(2 * len(true & said) / met if met else 0.0)


def test_tags_say_the_same_strictly() -> None:
    assert scored("span_f1", [("B-X I-X O B-Y", "B-X I-X O B-Y")]) == 1.0
    assert scored("span_f1", [("B-X I-X O B-Y", "B-X O I-X B-Y")]) == 0.5  # what does not begin is no span
    assert scored("span_f1", [("B-X I-X", "B-X I-Y")]) == 0.0


def test_the_baseline_knows_the_words_of_training_and_nothing_else() -> None:
    train = [
        Example(("d",), text="Ann Lee saw Rome", label='[[0,7,"PER"],[12,16,"LOC"]]'),
        Example(("d",), text="Rome saw Rome", label='[[0,4,"TEAM"],[9,13,"LOC"]]'),
    ]
    items = [Item("i", text="Rome, Ann Lee and Bob saw", reference="[]")]
    assert read_label(dictionary(train, items, seed=0)[0].text) == [(0, 4, "LOC"), (6, 13, "PER")]


def test_metrics_of_other_tasks_are_refused() -> None:
    TASK.require([load_metric(name) for name in TASK.metrics])
    with pytest.raises(UserError, match="needs probabilities; a model for task tag gives answer"):
        TASK.require([load_metric("accuracy")])
    assert np.isnan(load_metric("token_accuracy").reduce(np.zeros(2)))
