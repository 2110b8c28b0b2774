"""Entities found in texts: exact spans and types, from one label a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.evals.item import Item, Output
from treadle.evals.metric import Need, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

Span = tuple[str, int, int]


class SpanF1:
    """F measure of entities, each right only with its exact span and type (strict IOB2, as seqeval counts it).

    Reference and answer are labels parted by spaces: ``B-PER I-PER O``. An ``I`` without its ``B`` opens nothing.
    """

    name = "span_f1"
    higher_is_better = True
    needs: Need = "answer"

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """(right, found, true) entities per item."""
        rows = []
        for item, output in zip(items, outputs, strict=True):
            true, found = spans(item.reference.split()), spans(output.text.split())
            rows.append((len(true & found), len(found), len(true)))
        return rows

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """2 right / (found + true); 0 where there are none."""
        import numpy as np

        right, met = totals[..., 0], totals[..., 1] + totals[..., 2]
        return np.asarray(np.divide(2 * right, met, out=np.zeros_like(met, dtype=float), where=met > 0))


def spans(labels: Sequence[str]) -> set[Span]:
    """Type, first place and the place after the last, of every entity that begins with ``B``."""
    found: set[Span] = set()
    kind, start = "", 0
    for place, label in enumerate([*labels, "O"]):
        mark, _, name = label.partition("-")
        if kind and not (mark == "I" and name == kind):
            found.add((kind, start, place))
            kind = ""
        if mark == "B" and name:
            kind, start = name, place
    return found
