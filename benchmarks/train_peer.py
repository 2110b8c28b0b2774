"""What the trainings beside ``Trainer`` share."""

from __future__ import annotations

import importlib
import os
import resource
import time
from pathlib import Path
from typing import Any

LONGEST_S = 180.0
"""How long ``Trainer`` and TRL as they come may train, from their first step's end."""


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


def step_watch(way: str) -> Any:
    """A callback that knows when steps ended, and ends a training ``defaults`` after ``LONGEST_S``.

    Settings meant for another processor stand still (bfloat16 without instructions for it takes many times as long);
    such a way is measured by what it did until then.
    """
    transformers = importlib.import_module("transformers")

    class Watch(transformers.TrainerCallback):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            self.ends: list[float] = []
            self.steps = 0

        @property
        def seconds(self) -> float:
            """From the first step's end to the last's."""
            return self.ends[-1] - self.ends[0]

        def on_step_end(self, _arguments: Any, state: Any, control: Any, **_: Any) -> None:
            self.ends.append(time.perf_counter())
            self.steps = state.max_steps
            if way == "defaults" and len(self.ends) > 1 and self.seconds > LONGEST_S:
                control.should_training_stop = True

        def found(self, tokens: int) -> dict[str, float]:
            """Of a training of so many tokens: its speed after the first step, and the part of its steps it took."""
            after_first = tokens * (len(self.ends) - 1) / self.steps
            return {"tokens_per_second": after_first / self.seconds, "trained": len(self.ends) / self.steps}

    return Watch()
