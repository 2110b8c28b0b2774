"""Packed rows of tokens as rectangles of numbers, and the order in which a training sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treadle.lm.packing import PADDING
from treadle.lm.shuffled import shuffled

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Arrays of shape (rows, width), int64. ``positions`` count from 0 in each segment; a place without a token has
    the segment ``PADDING`` and is seen by nobody."""

    ids: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    segments: npt.NDArray[np.int64]


class PackedRows:
    """The rows of one split: ``ids`` of all examples, where each example ends, and after which of them each row."""

    def __init__(
        self, ids: npt.NDArray[Any], ends: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], width: int
    ) -> None:
        self.width = width
        self._ids, self._ends, self._rows = ids, ends, rows

    def __len__(self) -> int:
        return len(self._rows)

    def examples(self, row: int) -> range:
        """The examples that lie in a row."""
        return range(int(self._rows[row - 1]) if row else 0, int(self._rows[row]))

    def example(self, place: int) -> npt.NDArray[np.int64]:
        """The ids of one example."""
        import numpy as np

        return np.asarray(self._ids[self._start(place) : int(self._ends[place])], dtype=np.int64)

    @property
    def shared(self) -> bool:
        """Whether any row holds more than one example."""
        return len(self._rows) < len(self._ends)

    @property
    def highest(self) -> int:
        """The largest id; 0 where there is none."""
        return int(self._ids.max()) if len(self._ids) else 0

    def order(self, first: int, count: int, seed: int) -> list[int]:
        """The rows that a training with this seed takes as its samples ``first`` ... ``first + count``; every row
        comes once in an epoch, each epoch in another order."""
        import numpy as np

        samples = np.arange(first, first + count, dtype=np.uint64)
        epochs = samples // np.uint64(len(self))
        found = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            within = samples[here] - np.uint64(epoch * len(self))
            found[here] = shuffled(within, len(self), f"{seed}\0{epoch}")
        return [int(row) for row in found]

    def lay_out(self, rows: Sequence[int]) -> Rectangle:
        """Some rows, in the order given."""
        import numpy as np

        shape = (len(rows), self.width)
        ids, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        segments = np.full(shape, PADDING, dtype=np.int64)
        for at, row in enumerate(rows):
            members = self.examples(row)
            start, end = self._start(members.start), int(self._ends[members.stop - 1])
            ends = np.asarray(self._ends[members.start : members.stop]) - start
            lengths = np.diff(ends, prepend=0)
            size = end - start
            ids[at, :size] = self._ids[start:end]
            segments[at, :size] = np.repeat(np.arange(len(lengths)), lengths)
            positions[at, :size] = np.arange(size) - np.repeat(ends - lengths, lengths)
        return Rectangle(ids, positions, segments)

    def _start(self, place: int) -> int:
        return int(self._ends[place - 1]) if place else 0
