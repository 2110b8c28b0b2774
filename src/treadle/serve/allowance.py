"""How much one caller may do in a while."""

from __future__ import annotations

import math
import time


class Allowance:
    """``most`` times in ``seconds`` for each name, counted from the first time. Used in one event loop."""

    def __init__(self, most: int, seconds: float) -> None:
        self.most = most
        self.seconds = seconds
        self._counts: dict[str, tuple[float, int]] = {}
        self._swept = time.monotonic()

    def take(self, name: str) -> int | None:
        """Take one; None when it was there, otherwise the seconds until there is one again."""
        now = time.monotonic()
        if now - self._swept > self.seconds:  # names that have not come for so long are as good as new
            self._counts = {each: seen for each, seen in self._counts.items() if now - seen[0] < self.seconds}
            self._swept = now
        began, count = self._counts.get(name, (now, 0))
        if now - began >= self.seconds:
            began, count = now, 0
        if count >= self.most:
            return max(1, math.ceil(began + self.seconds - now))
        self._counts[name] = (began, count + 1)
        return None
