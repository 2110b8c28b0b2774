"""One process of a training: ``python -m treadle.lm.training_worker FOLDER``.

Who it is, it reads from the environment, as torchrun sets it (RANK, WORLD_SIZE, LOCAL_RANK). With MASTER_ADDR and
MASTER_PORT the processes meet there, else in a file of the job's folder. It ends when the process that started it does
(``TREADLE_WATCHED``: its standard input is a pipe from there).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from treadle.core.errors import TreadleError
from treadle.core.plugins import load
from treadle.lm import torch_runtime
from treadle.lm.joined_team import JoinedTeam
from treadle.lm.training_job import JobFolder

FAILED = 4  # the exit code of a process that said why in the folder
_BEAT = 5.0  # seconds
_PATIENCE = timedelta(minutes=30)  # for each other, in an exchange


def main(path: str) -> int:
    """Take part; the exit code."""
    if os.environ.get("TREADLE_WATCHED"):
        threading.Thread(target=_watch, daemon=True).start()
    folder = JobFolder(Path(path))
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    threading.Thread(target=_be_heard, args=(folder, rank), daemon=True).start()
    try:
        _take_part(folder, rank, size)
    except TreadleError as error:
        folder.failed(rank, error)
        return FAILED
    return 0


def _take_part(folder: JobFolder, rank: int, size: int) -> None:
    torch_runtime.patient_threads()
    import torch
    from torch import distributed

    job = folder.job()
    device = torch_runtime.device()
    here, beside = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if device == "cuda":
        torch.cuda.set_device(here % torch.cuda.device_count())
    if job.settings.threads is None:
        job = job.with_(threads=max(1, len(os.sched_getaffinity(0)) // beside))
    strategy: Any = load("treadle.strategies", job.strategy).value()
    distributed.init_process_group(
        "nccl" if device == "cuda" and torch.cuda.device_count() >= beside else "gloo",
        init_method="env://" if "MASTER_ADDR" in os.environ else f"file://{folder.path / 'meeting'}",
        rank=rank,
        world_size=size,
        timeout=_PATIENCE,
    )
    try:
        result = job.run(folder.report if rank == 0 else None, JoinedTeam(rank, size, strategy, device))
        if rank == 0:
            about = {"processes": size, "strategy": job.strategy}
            folder.done(replace(result, environment=result.environment | about))
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def _be_heard(folder: JobFolder, rank: int) -> None:
    """Whoever started this process may be elsewhere, and sees only the folder."""
    while True:
        with suppress(OSError):  # the folder goes when all is done
            folder.beat(rank)
        time.sleep(_BEAT)


def _watch() -> None:
    while os.read(0, 1 << 10):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
