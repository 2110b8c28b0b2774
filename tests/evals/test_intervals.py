"""Intervals cover what they say they cover, and comparisons decide what can be decided."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from treadle.core.errors import UserError
from treadle.evals.intervals import compare, interval
from treadle.evals.metric import ratio


def means(values: NDArray[Any]) -> NDArray[Any]:
    return np.stack([values, np.ones(len(values))], axis=1)


def perplexity(totals: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.exp(-totals[..., 0] / totals[..., 1]))


def likelihoods(rng: np.random.Generator, n: int, level: float = -2.7) -> NDArray[Any]:
    tokens = rng.integers(5, 30, n)
    return np.stack([tokens * rng.normal(level, 0.5, n) + rng.normal(size=n) * 2 * np.sqrt(tokens), tokens], axis=1)


@pytest.mark.parametrize("kind", ["normal", "skewed", "perplexity"])
def test_nineteen_of_twenty_intervals_cover_the_truth(kind: str) -> None:
    rng = np.random.default_rng(7)
    covered = []
    for repeat in range(400):
        if kind == "normal":
            found, true = interval(means(rng.normal(size=80)), ratio, seed=repeat, resamples=1_000), 0.0
        elif kind == "skewed":
            found, true = interval(means(rng.exponential(size=80)), ratio, seed=repeat, resamples=1_000), 1.0
        else:
            found, true = interval(likelihoods(rng, 80), perplexity, seed=repeat, resamples=1_000), math.exp(2.7)
        covered.append(found.low <= true <= found.high)
    assert 0.91 <= np.mean(covered) <= 0.98


def test_it_is_the_textbooks_interval_for_a_mean() -> None:
    values = np.random.default_rng(1).normal(3, 2, size=400)
    found = interval(means(values), ratio, seed=0)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)
    assert found.n == 400


def test_large_samples_take_the_blocked_path() -> None:
    values = np.random.default_rng(1).normal(size=30_000)
    found = interval(means(values), ratio, seed=0, resamples=300)
    assert found.high - found.low == pytest.approx(2 * 1.96 / math.sqrt(30_000), rel=0.25)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.integers(0, 1000))
def test_intervals_hold_the_extremes_and_repeat(values: list[float], seed: int) -> None:
    rows = means(np.array(values))
    found = interval(rows, ratio, seed=seed, resamples=200)
    assert found == interval(rows, ratio, seed=seed, resamples=200)
    slack = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - slack <= found.low <= found.high <= max(values) + slack


def test_the_same_items_compared_pairwise_decide_sooner() -> None:
    rng = np.random.default_rng(3)
    hard = rng.normal(0, 3, size=100)
    base, tuned = means(hard), means(hard + 0.2 + rng.normal(0, 0.1, size=100))
    found = compare(tuned, base, ratio, higher_is_better=True, seed=0)
    assert found.decided
    assert found.wins
    assert found.low < 0.2 < found.high
    assert found.better + found.worse == found.n == 100
    apart = interval(base, ratio, seed=0), interval(tuned, ratio, seed=0)
    assert apart[0].high > apart[1].low  # which unpaired intervals could not tell


def test_lower_can_be_better() -> None:
    rng = np.random.default_rng(4)
    base = likelihoods(rng, 120)
    tuned = base + np.stack([0.3 * base[:, 1], np.zeros(120)], axis=1)
    found = compare(tuned, base, perplexity, higher_is_better=False, seed=0)
    assert found.difference < 0
    assert (found.decided, found.wins, found.better, found.worse) == (True, True, 120, 0)
    back = compare(base, tuned, perplexity, higher_is_better=False, seed=0)
    assert (back.decided, back.wins, back.better, back.worse) == (True, False, 0, 120)


def test_false_decisions_are_rare() -> None:
    rng = np.random.default_rng(5)
    decided = []
    for repeat in range(300):
        base = rng.normal(size=60)
        other = base + rng.normal(0, 0.3, size=60)
        decided.append(
            compare(means(other), means(base), ratio, higher_is_better=True, seed=repeat, resamples=800).decided
        )
    assert np.mean(decided) < 0.095


def test_equal_models_and_few_items_decide_nothing() -> None:
    rows = means(np.arange(20.0))
    same = compare(rows, rows, ratio, higher_is_better=True, seed=0)
    assert (same.difference, same.low, same.high, same.decided, same.better, same.worse) == (0, 0, 0, False, 0, 0)
    few = compare(rows[:5] + np.array([1, 0]), rows[:5], ratio, higher_is_better=True, seed=0)
    assert (few.decided, few.wins, few.better) == (False, False, 5)


def test_what_cannot_be_compared() -> None:
    rows = means(np.arange(20.0))
    with pytest.raises(UserError, match="the same items; got 20 and 19"):
        compare(rows, rows[1:], ratio, higher_is_better=True, seed=0)
    with pytest.raises(UserError, match="at least 2 items"):
        interval(rows[:1], ratio, seed=0)
