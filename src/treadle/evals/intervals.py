"""How sure a score is: 95 % bootstrap intervals over items, and paired comparisons of two models on the same
items.

Items are resampled, not runs: the interval says how the score would vary with other items of the same kind,
not with another training seed. Items that depend on each other (many of one module) make it too narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.core.errors import UserError

LEVEL = 0.95
RESAMPLES = 10_000
MIN_ITEMS = 8  # with fewer, a bootstrap has too few different samples to decide anything
_BLOCK = 200_000  # numbers drawn at a time: they stay in the cache, which is five times as quick

Reduce = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A score with the interval that covers the true one in ``level`` of all samples of ``n`` items."""

    value: float
    low: float
    high: float
    n: int
    level: float = LEVEL

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus baseline on the same items. ``better`` and ``worse`` count items (ties are neither).

    ``decided`` when the interval leaves out 0 and there are at least ``MIN_ITEMS`` items; then ``wins`` says
    for whom.
    """

    difference: float
    low: float
    high: float
    better: int
    worse: int
    n: int
    decided: bool
    wins: bool
    level: float = LEVEL

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def interval(
    rows: NDArray[Any], reduce: Reduce, *, seed: int, level: float = LEVEL, resamples: int = RESAMPLES
) -> Interval:
    """The interval of ``reduce(sum of rows)`` for rows of shape (n, k): bias-corrected and accelerated (Efron
    1987).
    """
    _check(rows)
    value = float(reduce(rows.sum(axis=0)))
    draws = reduce(_resampled(rows, seed, resamples))
    left_out = reduce(rows.sum(axis=0) - rows)
    low, high = _bca(value, draws, left_out, level)
    return Interval(value, low, high, len(rows), level)


def compare(
    candidate: NDArray[Any],
    baseline: NDArray[Any],
    reduce: Reduce,
    *,
    higher_is_better: bool,
    seed: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Paired: row i of both is the same item, and both are resampled together."""
    _check(candidate)
    _check(baseline)
    if len(candidate) != len(baseline):
        raise UserError(f"a paired comparison needs the same items; got {len(candidate)} and {len(baseline)}")
    both = np.concatenate([candidate, baseline], axis=1)
    columns = candidate.shape[1]

    def difference(totals: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(reduce(totals[..., :columns]) - reduce(totals[..., columns:]))

    value = float(difference(both.sum(axis=0)))
    draws = difference(_resampled(both, seed, resamples))
    low, high = _bca(value, draws, difference(both.sum(axis=0) - both), level)
    each = difference(both) * (1 if higher_is_better else -1)
    decided = len(both) >= MIN_ITEMS and not low <= 0 <= high
    return Comparison(
        difference=value,
        low=low,
        high=high,
        better=int((each > 1e-12).sum()),
        worse=int((each < -1e-12).sum()),
        n=len(both),
        decided=decided,
        wins=decided and (value > 0) == higher_is_better,
        level=level,
    )


def _check(rows: NDArray[Any]) -> None:
    if rows.ndim != 2 or len(rows) < 2:
        raise UserError(f"an interval needs at least 2 items; got rows of shape {rows.shape}")


def _resampled(rows: NDArray[Any], seed: int, resamples: int) -> NDArray[Any]:
    """Sums of rows drawn with replacement, of shape (resamples, k): draws become counts, and counts @ rows
    are sums.
    """
    n = len(rows)
    rng = np.random.default_rng(seed)
    sums = np.empty((resamples, rows.shape[1]))
    block = max(1, _BLOCK // n)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(0, n, size=(size, n), dtype=np.int64)
        drawn += np.arange(size)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        sums[start : start + size] = counts.astype(np.float64) @ rows
    return sums


def _bca(value: float, draws: NDArray[Any], left_out: NDArray[Any], level: float) -> tuple[float, float]:
    """Quantiles of the draws, moved by their bias and by how the spread changes with the value (from the
    jackknife).
    """
    draws = np.sort(draws[np.isfinite(draws)])
    if not len(draws) or draws[0] == draws[-1]:
        return value, value
    normal = NormalDist()
    below = (np.count_nonzero(draws < value) + np.count_nonzero(draws == value) / 2) / len(draws)
    edge = 1 / (len(draws) + 1)
    bias = normal.inv_cdf(min(max(below, edge), 1 - edge))
    gaps = left_out[np.isfinite(left_out)].mean() - left_out[np.isfinite(left_out)]
    widest = float(np.abs(gaps).max(initial=0.0))
    gaps = gaps / widest if widest > 0 else gaps  # cubes of small numbers would vanish
    bend = float((gaps**3).sum()) / (6 * float((gaps**2).sum()) ** 1.5) if widest > 0 else 0.0
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        moved = bias + normal.inv_cdf(share)
        shifted = bias + moved / max(1 - bend * moved, 0.1)
        ends.append(float(np.quantile(draws, min(max(normal.cdf(shifted), edge), 1 - edge))))
    return ends[0], ends[1]
