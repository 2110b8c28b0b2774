"""A training's processes as tasks of Ray: of a cluster that ends with the training, or of yours on this machine.

Each task starts a process and waits for it, so a worker that dies takes its process along.
"""

from __future__ import annotations

import subprocess
import threading
from functools import partial
from pathlib import Path

from treadle.core.errors import TreadleError
from treadle.integrations.ray_executor import RayExecutor
from treadle.lm.launcher import Ended, Started, StrategyName, Torchrun, ended_by, worker_command, worker_environment


class RayTraining(Torchrun):
    """``processes`` tasks, sharing the model by ``strategy``; ``address``: of a cluster, by default one of its own."""

    name = "ray"
    package = "ray"  # that has to be installed

    def __init__(
        self, processes: int = 2, strategy: StrategyName = "ddp", restarts: int = 2, address: str | None = None
    ) -> None:
        """``UserError`` for a number that makes no sense."""
        super().__init__(processes, strategy, restarts)
        self._address = address

    def start(self, folder: Path) -> Started:
        """As ``Launcher``."""
        return _Tasks(RayExecutor(self.processes, self._address), folder, self.processes)


class _Tasks:
    def __init__(self, executor: RayExecutor, folder: Path, count: int) -> None:
        self._executor, self._folder, self._count = executor, folder, count
        self._ended: Ended | None = None
        self._thread = threading.Thread(target=self._run, name="ray-training", daemon=True)
        executor.begin()
        self._thread.start()

    def _run(self) -> None:
        try:
            codes = list(self._executor.map(partial(_work, self._folder, self._count), range(self._count)))
        except TreadleError as error:
            self._ended = Ended(str(error), killed=True)
            return
        wrong = [(rank, code) for rank, code in enumerate(codes) if code]
        if not wrong:
            self._ended = Ended()
            return
        rank, code = min(wrong, key=lambda each: each[1] > 0)
        self._ended = ended_by(rank, self._count, code, self._folder / f"said-{rank}")

    def poll(self) -> Ended | None:
        return self._ended

    def end(self) -> None:
        self._executor.close()
        self._thread.join()


def _work(folder: Path, count: int, rank: int) -> int:
    """One process of the training, from beginning to end; its exit code."""
    with (folder / f"said-{rank}").open("wb") as said:
        process = subprocess.Popen(
            worker_command(folder), stdin=subprocess.PIPE, stdout=said, stderr=said, env=worker_environment(rank, count)
        )
        return process.wait()
