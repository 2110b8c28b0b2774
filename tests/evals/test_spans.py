"""Entities as seqeval counts them, and Brier's score as it is defined."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.evals.answers import exact_text
from treadle.evals.item import Item, Output
from treadle.evals.labels import brier
from treadle.evals.metric import load_metric, score_rows
from treadle.evals.tagged_spans import SpanF1

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from seqeval.metrics import f1_score
    from seqeval.scheme import IOB2

LABELS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
PAIRS = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=12)


@given(st.lists(PAIRS, min_size=1, max_size=5))
def test_span_f1_is_that_of_seqeval(sentences: list[list[tuple[str, str]]]) -> None:
    true = [[first for first, _ in each] for each in sentences]
    said = [[second for _, second in each] for each in sentences]
    items = [Item(str(place), reference=" ".join(each)) for place, each in enumerate(true)]
    rows = score_rows(SpanF1(), items, [Output(" ".join(each)) for each in said])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = f1_score(true, said, mode="strict", scheme=IOB2, zero_division=0)
    assert SpanF1().reduce(rows.sum(axis=0)) == pytest.approx(theirs)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.floats(0.01, 1), min_size=3, max_size=3)), min_size=1, max_size=6)
)
def test_brier_is_the_squared_distance(rows: list[tuple[int, list[float]]]) -> None:
    names = ("a", "b", "c")
    shares = [np.array(each) / np.sum(each) for _, each in rows]
    items = [Item(str(place), reference=names[right]) for place, (right, _) in enumerate(rows)]
    outputs = [Output(probabilities=dict(zip(names, map(float, each), strict=True))) for each in shares]
    truth = np.eye(3)[[right for right, _ in rows]]
    assert brier(items, outputs) == pytest.approx(list(((np.array(shares) - truth) ** 2).sum(axis=1)))
    assert not load_metric("brier").higher_is_better


def test_exact_text_minds_everything_but_spaces_around() -> None:
    items = [Item(str(place), reference="The cat.") for place in range(3)]
    assert exact_text(items, [Output(" The cat.\n"), Output("the cat."), Output("The cat")]) == [1, 0, 0]
