"""Which of two answers a model would sooner give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.evals.item import Item, Output
from treadle.evals.metric import Need, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PreferenceAccuracy:
    """Share of the pairs in which the reference is more probable than the rejected answer; half for equal ones."""

    name = "preference_accuracy"
    higher_is_better = True
    needs: Need = "preference"

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """(1 or 0, 1) per item with a rejected answer, (0, 0) for the others."""
        return [_row(output) for output in outputs]

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """The share; 0 where there is no pair."""
        import numpy as np

        return np.asarray(totals[..., 0] / np.maximum(totals[..., 1], 1))


def _row(output: Output) -> tuple[float, float]:
    wanted, rejected = output.log_likelihood, output.rejected_log_likelihood
    if wanted is None or rejected is None:
        return 0.0, 0.0
    return 0.5 * (wanted > rejected) + 0.5 * (wanted >= rejected), 1.0
