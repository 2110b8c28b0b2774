"""What the trainings beside ``Trainer`` share."""

from __future__ import annotations

import importlib
import os
import resource
import time
from pathlib import Path
from typing import Any


def peak_mb() -> int:
    """The most memory that this process has held, in 2^20 bytes."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def plain_arguments(out: Path) -> dict[str, Any]:
    """What every ``Trainer`` is told: nothing is saved, logged or reported; all processors are used."""
    import torch

    from treadle.lm import torch_runtime

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return {
        "output_dir": str(out.parent / "trainer"),
        "num_train_epochs": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_strategy": "no",
        "use_cpu": torch_runtime.device() == "cpu",
        "seed": 17,
    }


def step_watch() -> Any:
    """A callback; ``seconds`` is the time from the first step's end to the last's."""
    transformers = importlib.import_module("transformers")

    class Watch(transformers.TrainerCallback):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            self.ends: list[float] = []

        @property
        def seconds(self) -> float:
            return self.ends[-1] - self.ends[0]

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.perf_counter())

    return Watch()
