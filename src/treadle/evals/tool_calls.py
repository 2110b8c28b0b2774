"""Whether a model calls the functions that it should, as it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.evals.item import Item, Output
from treadle.evals.metric import Need, Rows
from treadle.text.tool_calls import read_calls, same_calls

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ToolCallMatch:
    """Share of the items with tools where the answer makes the reference's calls: names and arguments equal as JSON, in
    one order; none where the reference makes none."""

    name = "tool_call_match"
    higher_is_better = True
    needs: Need = "answer"

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """(1 or 0, 1) per item with tools, (0, 0) for the others."""
        return [
            (float(same_calls(item.calls, read_calls(output.text)[1])), 1.0) if item.tools or item.calls else (0.0, 0.0)
            for item, output in zip(items, outputs, strict=True)
        ]

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """The share; 0 where there is no item with tools."""
        import numpy as np

        return np.asarray(totals[..., 0] / np.maximum(totals[..., 1], 1))
