"""Processor and memory of this process and those it started, sampled in a thread, from ``/proc``.

What else there is to sample (a graphics card) comes in by name, from the entry points ``treadle.samplers``: a function
that takes nothing and gives another one, which gives numbers by name, or None where there is nothing to sample.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from treadle.core import plugins
from treadle.core.errors import TreadleError

GROUP = "treadle.samplers"
SECONDS = 5.0  # between two samples

Sample = Callable[[], dict[str, float]]

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")
_log = logging.getLogger(__name__)


class SystemMetrics:
    """Gives ``log`` numbers every few seconds until it is stopped; once more then, so that a short run has some too."""

    def __init__(self, log: Callable[[dict[str, float]], object], seconds: float = SECONDS) -> None:
        self._log = log
        self._seconds = seconds
        self._tree = ProcessTree(os.getpid())
        self._more: list[Sample] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._go, name="system metrics", daemon=True)
        self._thread.start()

    def _go(self) -> None:
        while not self._stopped.wait(self._seconds):
            if self._more is None:
                self._more = samplers()
            self._take()

    def _take(self) -> None:
        try:
            found = self._tree.sample()
            for sample in self._more or ():
                found |= sample()
            self._log(found)
        except (OSError, ValueError, TreadleError) as error:  # the run matters more than its figures
            _log.warning("no system metrics this time: %s", error)

    def stop(self) -> None:
        """End the thread, and take a last sample."""
        self._stopped.set()
        self._thread.join()
        self._take()


class ProcessTree:
    """A process and its descendants: ``cpu_percent`` since the sample before (100 is one processor), ``memory_mb``
    resident, ``processes``."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._before = (time.monotonic(), self._ticks())

    def _ticks(self) -> float:
        return sum(_usage(pid)[0] for pid in _family(self._root))

    def sample(self) -> dict[str, float]:
        """The present figures."""
        usages = [_usage(pid) for pid in _family(self._root)]
        moment, ticks = time.monotonic(), sum(each[0] for each in usages)
        since, before = self._before
        self._before = (moment, ticks)
        # A child that ended takes its ticks along, so the sum may fall.
        busy = max(0.0, ticks - before) / _TICK / max(moment - since, 1e-6)
        memory = sum(each[1] for each in usages) * _PAGE / 1e6
        return {"cpu_percent": round(100 * busy, 1), "memory_mb": round(memory, 1), "processes": float(len(usages))}


def samplers() -> list[Sample]:
    """What is installed and finds something here to sample."""
    found = []
    for name in plugins.names(GROUP):
        try:
            sample = plugins.load(GROUP, name).value()
        except (TreadleError, OSError) as error:
            _log.warning("sampler %s: %s", name, error)
            continue
        if sample is not None:
            found.append(sample)
    return found


def _family(root: int) -> list[int]:
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            for task in (_PROC / str(pid) / "task").iterdir():
                waiting.extend(map(int, (task / "children").read_text().split()))
        except OSError:  # it has ended, or the kernel does not tell
            continue
    return found


def _usage(pid: int) -> tuple[float, int]:
    """Ticks of processor time, and resident pages; nothing of a process that has ended."""
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rsplit(b")", 1)[1].split()
        return float(fields[11]) + float(fields[12]), int(fields[21])
    except (OSError, IndexError, ValueError):
        return 0.0, 0
