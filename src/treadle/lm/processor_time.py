"""Seconds of processor time that some work takes, here and in the processes started from here."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from treadle.core.errors import MissingExtra


class Stopwatch:
    """Runs inside its ``with``; ``cpu_seconds`` are those of all threads of this process and its children, which must
    be alive at both ends, ``seconds`` those of the clock."""

    cpu_seconds: float = 0.0
    seconds: float = 0.0

    def __enter__(self) -> Self:
        self._clock, self._cpu = time.perf_counter(), _used()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = max(time.perf_counter() - self._clock, 1e-9)
        self.cpu_seconds = max(self.processor(), 1e-9)

    def processor(self) -> float:
        """Seconds of processor time so far."""
        return _used() - self._cpu


def _used() -> float:
    try:
        import psutil  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise MissingExtra("psutil", extra="serve") from None
    own = psutil.Process()
    found = 0.0
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found += times.user + times.system
    return found
