"""What a metric is, and the door metrics come in by.

A metric gives each item a row of numbers, and a function of the rows' sums is the score: a mean is the sum of
values over the sum of ones, perplexity ``exp(-nats / tokens)``, macro F1 a function of counts. So every
metric is resampled the same way, by summing other rows. Most metrics are a mean and need none of this: a
plain function ``metric(items, outputs) -> one number per item`` is taken as one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from treadle.core.errors import UserError
from treadle.core.plugins import load
from treadle.evals.item import Item, Output

if TYPE_CHECKING:
    from numpy.typing import NDArray

GROUP = "treadle.metrics"
Need = Literal["answer", "likelihood", "preference", "probabilities", "ranking", "choices"]
Rows = Sequence[float] | Sequence[Sequence[float]]
MetricFunction = Callable[[Sequence[Item], Sequence[Output]], Rows]


class Metric(Protocol):
    """``needs`` says what has to be run for it: generate an answer, score the reference (for ``preference``
    the rejected answer too), or classify."""

    @property
    def name(self) -> str:
        """As the file and the results call it."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """False for errors, losses and perplexities."""
        ...

    @property
    def needs(self) -> Need:
        """What has to be run for it."""
        ...

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """One number or one row of numbers (the same count for all) per item."""
        ...

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """Scores of summed rows: from shape (..., k) to (...)."""
        ...


@dataclass(frozen=True, slots=True)
class Mean:
    """A metric that is the mean of a number per item, made from a plain function."""

    name: str
    function: MetricFunction
    higher_is_better: bool = True
    needs: Need = "answer"

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """(value, 1) per item."""
        values: Sequence[Any] = self.function(items, outputs)
        try:
            return [(float(value), 1.0) for value in values]
        except (TypeError, ValueError) as error:
            raise UserError(
                f"metric {self.name} gave {type(values).__name__}: expected a number for each item ({error})"
            ) from None

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """The mean."""
        return ratio(totals)


def ratio(totals: NDArray[Any]) -> NDArray[Any]:
    """First column over second; not a number where the second is 0."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(totals[..., 0] / totals[..., 1])


def score_rows(metric: Metric, items: Sequence[Item], outputs: Sequence[Output]) -> NDArray[Any]:
    """The rows of a metric, of shape (items, k), checked. ``UserError`` when it did not give a finite row per
    item.
    """
    import numpy as np

    if len(items) != len(outputs):
        raise UserError(
            f"{metric.name}: {len(outputs)} outputs for {len(items)} items; they belong together one by one"
        )
    try:
        rows = np.array(metric.score(items, outputs), dtype=np.float64)
    except ValueError as error:
        raise UserError(f"metric {metric.name} gave rows that are not numbers of one length: {error}") from None
    if rows.ndim == 1:
        rows = np.stack([rows, np.ones_like(rows)], axis=1)
    if rows.ndim != 2 or len(rows) != len(items):
        raise UserError(
            f"metric {metric.name} gave an array of shape {rows.shape} for {len(items)} items; expected a row each"
        )
    broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(broken):
        raise UserError(
            f"metric {metric.name} gave no finite number for {len(broken)} items, {items[broken[0]].id} first"
        )
    return rows


def load_metric(name: str, folder: Path | None = None) -> Metric:
    """The metric of that name (entry point or ``module:function``); ``UserError`` with the nearest name when
    there is none.
    """
    return as_metric(name.rpartition(":")[2], load(GROUP, name, folder).value)


def as_metric(name: str, value: Any) -> Metric:
    """A metric from what a plugin is: a class, an object with ``score``, or a function of items and outputs."""
    if isinstance(value, type):
        value = value()
    if hasattr(value, "score") and hasattr(value, "reduce"):
        metric: Metric = value
        return metric
    if not callable(value):
        raise UserError(f"metric {name}: {value!r} is neither a Metric nor a function of (items, outputs)")
    needs: Need = getattr(value, "needs", "answer")
    return Mean(name, value, higher_is_better=bool(getattr(value, "higher_is_better", True)), needs=needs)
