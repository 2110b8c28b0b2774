"""A circuit breaker: what fails again and again is left alone for a while, then tried by one request."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Literal

State = Literal["closed", "half_open", "open"]


class Breaker:
    """Opens when ``failures`` of them fell within ``window`` seconds. After ``pause`` seconds one request may try
    (half open): if it succeeds the breaker closes, if it fails the pause begins anew.

    Every request that `allows` let through and that called `begin` ends with one of `succeeded`, `failed` and
    `undecided`.
    """

    def __init__(
        self, failures: int, window: float, pause: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._window, self._pause, self._clock = failures, window, pause, clock
        self._failed: deque[float] = deque(maxlen=failures)
        self._opened: float | None = None
        self._trying = False
        self.times_opened = 0

    @property
    def state(self) -> State:
        """Open for as long as nothing may be sent."""
        if self._opened is None:
            return "closed"
        return "open" if self.seconds > 0 else "half_open"

    @property
    def seconds(self) -> float:
        """Until the next request may try; 0 where one may now."""
        return 0.0 if self._opened is None else max(0.0, self._opened + self._pause - self._clock())

    def allows(self) -> bool:
        """Whether a request may be sent now."""
        return self._opened is None or (not self._trying and self.seconds <= 0)

    def begin(self) -> None:
        """One is sent."""
        self._trying = self._opened is not None

    def succeeded(self) -> None:
        """It was answered. A late answer to what was sent before the breaker opened does not close it."""
        if self._opened is None or self._trying:
            self._failed.clear()
            self._opened, self._trying = None, False

    def failed(self) -> None:
        """It was not."""
        now = self._clock()
        if self._opened is not None:
            if self._trying:
                self._opened, self._trying = now, False
                self.times_opened += 1
            return
        self._failed.append(now)
        if len(self._failed) == self._most and now - self._failed[0] <= self._window:
            self._opened = now
            self.times_opened += 1

    def undecided(self) -> None:
        """Nobody waited for the answer any longer: another request may try."""
        self._trying = False
