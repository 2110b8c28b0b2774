"""Who starts the processes of a training, watches them and reports: here on this machine.

They meet in a file of the job's folder and talk over the loopback alone. When one is killed the others are ended, and
all are started again from the last checkpoint, at most ``restarts`` times. When one has too little memory they are
started again with half as many samples at a time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from treadle.core.errors import TreadleError, UserError
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import OnStep, OutOfMemory, StepReport
from treadle.lm.training_job import JobFolder, job_of
from treadle.lm.training_worker import FAILED

R = TypeVar("R")
StrategyName = Literal["ddp", "fsdp2", "zero2", "zero3"]
SILENT = 60.0  # seconds without a sign of a process that somebody started, before it counts as gone
_BETWEEN = 5.0  # seconds from one look for such signs to the next
_LOOK = 0.05  # seconds from one look at the processes to the next
_TAIL = 4096  # bytes of what a process said last


class Started(Protocol):
    """Processes under way."""

    def poll(self) -> Ended | None:
        """None while they run."""
        ...

    def end(self) -> None:
        """Make them end, if they have not."""
        ...


class Ended:
    """How processes ended: ``reason`` is None when all is well; ``killed``: by nothing that would happen again."""

    def __init__(self, reason: str | None = None, *, killed: bool = False) -> None:
        self.reason, self.killed = reason, killed


@runtime_checkable
class Launcher(Protocol):
    """Starts the processes of a training."""

    name: str
    about: str
    processes: int
    strategy: str
    restarts: int

    def start(self, folder: Path) -> Started:
        """Start ``training_worker`` on a job's folder, as often as there are processes."""
        ...


class Here:
    """This process, alone."""

    name = "process"


class Torchrun:
    """Processes on this machine: ``processes`` of them, sharing the model by ``strategy``."""

    name = "torchrun"

    def __init__(self, processes: int = 2, strategy: StrategyName = "ddp", restarts: int = 2) -> None:
        """``UserError`` for a number that makes no sense."""
        if processes < 1 or restarts < 0:
            raise UserError(
                f"develop.on ({self.name}): expected processes of 1 or more and restarts of 0 or more, not {processes} "
                f"and {restarts}"
            )
        self.processes, self.strategy, self.restarts = processes, strategy, restarts
        self.about = f"{self.name}: {processes} processes, {strategy}"

    def start(self, folder: Path) -> Started:
        """As ``Launcher``."""
        return _Processes(folder, self.processes)


class ByHand(Torchrun):
    """Processes that somebody starts, on as many machines as they like that see the project's folder."""

    name = "hand"

    def __init__(self, processes: int = 2, strategy: StrategyName = "ddp") -> None:
        """``processes``: of all machines together."""
        super().__init__(processes, strategy, 0)

    def start(self, folder: Path) -> Started:
        """Say what to start, and wait."""
        sys.stderr.write(
            f"develop.on (hand): start {self.processes} processes, on one machine with\n"
            f"  torchrun --standalone --nproc-per-node {self.processes} -m treadle.lm.training_worker {folder}\n"
        )
        return _Awaited(JobFolder(folder))


class _Awaited:
    """Processes of which only the job's folder is seen."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder, self._asked = folder, time.monotonic()

    def poll(self) -> Ended | None:
        if self._folder.is_done():
            return Ended()
        error = self._folder.error()
        if error is not None:
            return Ended(str(error))
        if time.monotonic() - self._asked < min(_BETWEEN, SILENT):
            return None
        self._asked = time.monotonic()
        rank = self._folder.silent(SILENT)
        return Ended(f"process {rank} has not been heard of for {SILENT:g} seconds") if rank is not None else None

    def end(self) -> None:
        """Whoever started them ends them."""


def worker_command(folder: Path) -> list[str]:
    """What one process of a training is."""
    return [sys.executable, "-P", "-m", "treadle.lm.training_worker", str(folder)]


def worker_environment(rank: int, count: int) -> dict[str, str]:
    """Who it is, for one of ``count`` that are all on one machine and talk over its loopback."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASTER_")}
    environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "TREADLE_WATCHED": "1"}
    environment |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    environment.setdefault("NCCL_SOCKET_IFNAME", "lo")
    return environment


def ended_by(rank: int, count: int, code: int, said: Path) -> Ended:
    """What is told of the process that ended with a code other than 0; ``said``: what it wrote."""
    what = f"process {rank + 1} of {count}"
    if code < 0:
        return Ended(f"{what} was ended by {signal.Signals(-code).name}", killed=True)
    words = said.read_bytes()[-_TAIL:].decode(errors="replace") if said.exists() else ""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return Ended(f"{what} ended with code {code}" + (f": {lines[-1][:300]}" if lines else ""))


class _Processes:
    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._running = [self._start(rank) for rank in range(count)]

    def _start(self, rank: int) -> subprocess.Popen[bytes]:
        with (self._folder / f"said-{rank}").open("wb") as said:
            return subprocess.Popen(
                worker_command(self._folder),
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                env=worker_environment(rank, self._count),
            )

    def poll(self) -> Ended | None:
        codes = [each.poll() for each in self._running]
        wrong = [(rank, code) for rank, code in enumerate(codes) if code]
        if not wrong:
            return Ended() if None not in codes else None
        # One that was killed comes first: the others fail because it is gone.
        rank, code = min(wrong, key=lambda each: (each[1] > 0, each[1] != FAILED))
        return ended_by(rank, self._count, code, self._folder / f"said-{rank}")

    def end(self) -> None:
        for each in self._running:
            with suppress(OSError):
                each.kill()
        for each in self._running:
            each.wait()
            if each.stdin is not None:
                with suppress(OSError):
                    each.stdin.close()


def carry_out(
    place: object,
    folder: Path,
    function: Callable[..., R],
    arguments: tuple[Any, ...],
    settings: Any,
    checkpoints: Checkpoints | None,
    on_step: OnStep,
) -> R:
    """Call ``function`` here, or let the processes of a ``Launcher`` do it; ``folder`` is for the job.

    ``TreadleError`` when a process was killed too often; what a process raised otherwise.
    """
    if not isinstance(place, Launcher):
        return function(*arguments, settings, checkpoints=checkpoints, on_step=on_step)
    job = job_of(function, arguments, settings, checkpoints, place.strategy)
    kept, left, last = JobFolder(folder), place.restarts, 0

    def tell(report: StepReport) -> None:
        nonlocal last
        if report.step > last:  # after a fall, steps come again
            last = report.step
            on_step(report)

    while True:
        kept.write(job)
        ended = _watched(place, kept, tell)
        error = kept.error()
        if ended.reason is None:
            result: R = kept.result()
            return result
        if isinstance(error, OutOfMemory) and not ended.killed:
            job = job.with_(micro=-(-error.micro // 2))
        elif error is not None and not ended.killed:
            raise error
        elif ended.killed and left > 0:
            left -= 1
        else:
            raise TreadleError(
                f"develop.on ({place.name}): {ended.reason}; the last checkpoint is whole: run the same command again "
                "to go on from it"
            )


def _watched(place: Launcher, folder: JobFolder, tell: OnStep) -> Ended:
    started = place.start(folder.path)
    try:
        while True:
            ended = started.poll()
            for report in folder.reports():
                tell(report)
            if ended is not None:
                return ended
            time.sleep(_LOOK)
    finally:
        started.end()
