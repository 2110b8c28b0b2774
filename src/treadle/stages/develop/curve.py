"""A loss as it falls, in a line of a terminal."""

from __future__ import annotations

import math

_BLOCKS = "▁▂▃▄▅▆▇█"
_COLUMNS = 16  # at most, and even


class Curve:
    """Draws what it was told so far, from left to right, in a few columns.

    A column is the mean of as many numbers as every other; when all are full they are joined two by two, so that the
    longest training fits.
    """

    def __init__(self) -> None:
        self._width = 1
        self._full: list[float] = []
        self._open: list[float] = []

    def add(self, value: float) -> str:
        """The curve with one number more; what is no number leaves it as it was."""
        if math.isfinite(value):
            if len(self._full) == _COLUMNS:
                self._full = [(left + right) / 2 for left, right in zip(self._full[::2], self._full[1::2], strict=True)]
                self._width *= 2
            self._open.append(value)
            if len(self._open) == self._width:
                self._full.append(sum(self._open) / self._width)
                self._open.clear()
        return self._drawn()

    def _drawn(self) -> str:
        heights = self._full or self._open
        if not heights:
            return ""
        low, high = min(heights), max(heights)
        step = (high - low) / (len(_BLOCKS) - 1) or math.inf
        return "".join(_BLOCKS[round((height - low) / step)] for height in heights)
