"""How well labels are chosen, and how far the stated confidence is off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.core.errors import UserError
from treadle.evals.item import Item, Output
from treadle.evals.metric import Need, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 15  # as Guo et al. 2017


def accuracy(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """Share of items whose label is right."""
    return [float(item.reference == output.text) for item, output in zip(items, outputs, strict=True)]


accuracy.needs = "probabilities"  # type: ignore[attr-defined]


class F1Macro:
    """Mean over labels of the F measure; labels in neither references nor predictions do not count, as in
    scikit-learn.
    """

    name = "f1_macro"
    higher_is_better = True
    needs: Need = "probabilities"

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """Per item three counts for each label: right, chosen, true."""
        import numpy as np

        labels = sorted({item.reference for item in items} | {output.text for output in outputs})
        place = {label: number for number, label in enumerate(labels)}
        rows = np.zeros((len(items), 3, len(labels)))
        for number, (item, output) in enumerate(zip(items, outputs, strict=True)):
            rows[number, 1, place[output.text]] = 1
            rows[number, 2, place[item.reference]] = 1
            if item.reference == output.text:
                rows[number, 0, place[output.text]] = 1
        return rows.reshape(len(items), -1)  # type: ignore[return-value]

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """2 right / (chosen + true), averaged over the labels that occur."""
        import numpy as np

        right, chosen, true = np.moveaxis(totals.reshape(*totals.shape[:-1], 3, -1), -2, 0)
        met = chosen + true
        scores = np.divide(2 * right, met, out=np.zeros_like(met), where=met > 0)
        return np.asarray(scores.sum(axis=-1) / np.maximum((met > 0).sum(axis=-1), 1))


class F1Micro(F1Macro):
    """F measure of all labels together; where each item has one label and gets one, that is the accuracy."""

    name = "f1_micro"

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """2 right / (chosen + true), each summed over the labels."""
        import numpy as np

        right, chosen, true = np.moveaxis(totals.reshape(*totals.shape[:-1], 3, -1).sum(axis=-1), -1, 0)
        return np.asarray(2 * right / np.maximum(chosen + true, 1))


def brier(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """Brier score: squared distance of the probabilities from the truth, summed over labels (Brier 1950); 0 to 2."""
    found = []
    for item, output in zip(items, outputs, strict=True):
        if not output.probabilities:
            raise UserError(f"item {item.id}: brier needs probabilities; this model gave only a label")
        known = dict(output.probabilities)
        known.setdefault(item.reference, 0.0)
        found.append(sum((share - (label == item.reference)) ** 2 for label, share in known.items()))
    return found


brier.needs = "probabilities"  # type: ignore[attr-defined]
brier.higher_is_better = False  # type: ignore[attr-defined]


class CalibrationError:
    """Expected calibration error: mean distance of confidence and accuracy over ``BINS`` equal bins of
    confidence.

    With few items it is too high by construction, also for a perfectly calibrated model: compare models on
    the same items.
    """

    name = "ece"
    higher_is_better = False
    needs: Need = "probabilities"

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """Per item, in the bin of its confidence: (confidence - right), and 1 in the last column."""
        import numpy as np

        rows = np.zeros((len(items), BINS + 1))
        for number, (item, output) in enumerate(zip(items, outputs, strict=True)):
            if not output.probabilities:
                raise UserError(f"item {item.id}: ece needs probabilities; this model gave only a label")
            confidence = float(output.probabilities.get(output.text, 0.0))
            bin_ = min(max(int(np.ceil(confidence * BINS)) - 1, 0), BINS - 1)  # (low, high], as Guo et al.
            rows[number, bin_] = confidence - (item.reference == output.text)
            rows[number, BINS] = 1
        return rows  # type: ignore[return-value]

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """Sum over bins of |confidence - right| over the count of items."""
        import numpy as np

        return np.asarray(np.abs(totals[..., :BINS]).sum(axis=-1) / np.maximum(totals[..., BINS], 1))
