"""A training in a process that a test kills: ``python killed_training.py KIND BASE OUT KEPT``.

It says each step when it is done, and the last line is the number of steps that came from a checkpoint.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from treadle.lm.checkpoint import Checkpoints
from treadle.lm.classification import ClassifierSettings, train_classifier
from treadle.lm.packed_rows import PackedRows
from treadle.lm.packing import TokenizedExample
from treadle.lm.pretraining import PretrainingSettings, pretrain
from treadle.lm.training import TrainingSettings, train

STEPS = 60


def _call(kind: str, base: Path, out: Path) -> tuple[Any, tuple[Any, ...]]:
    """What to call, and with what."""
    draw = random.Random(0)
    if kind == "classifier":
        texts = [" ".join(draw.choices(["object", "value", "function", "user", "returns"], k=6)) for _ in range(24)]
        labels = ClassifierSettings(epochs=STEPS // 6, batch_size=4, max_length=16, threads=1, precision="float32")
        return train_classifier, (base, out, texts, ["a", "b"] * 12, labels)
    if kind == "pretrain":
        ids = np.random.default_rng(0).integers(3, 300, 40 * 16).astype("<u2")
        rows = PackedRows(ids, np.arange(1, 41) * 16, np.arange(1, 41), 16)
        return pretrain, (base, out, rows, PretrainingSettings(tokens=STEPS * 4 * 16, batch=4, threads=1))
    sizes = [draw.randint(6, 40) for _ in range(30)]
    examples = [
        TokenizedExample([draw.randrange(3, 320) for _ in range(size)], [i >= size // 2 for i in range(size)])
        for size in sizes
    ]
    method: Any = kind
    settings = TrainingSettings(method, token_budget=STEPS * 2 * 48, rows=2, width=48, threads=1)
    return train, (base, out, examples, settings)


def main(kind: str, base: str, out: str, kept: str) -> None:
    function, arguments = _call(kind, Path(base), Path(out))

    def say(report: Any) -> None:
        sys.stdout.write(f"{report.step}\n")
        sys.stdout.flush()
        time.sleep(0.01)  # so that a kill comes near the step it is meant for

    with Checkpoints(Path(kept), every=0.0) as checkpoints:
        result = function(*arguments, on_step=say, checkpoints=checkpoints)
    sys.stdout.write(f"{result.resumed}\n")


if __name__ == "__main__":
    main(*sys.argv[1:5])
