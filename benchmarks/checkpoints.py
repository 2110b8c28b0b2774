"""What checkpoints cost at the default interval: ``python -m benchmarks.checkpoints [--seconds 300]``.

Two trainings: fine-tuning SmolLM2-135M, and pretraining a Llama of 10M parameters from random weights. A checkpoint is
written in every other block of steps, and a block with one is compared with the mean of the two without beside it:
whole trainings of some minutes, one with checkpoints and one without, differ by 4 % in either direction on a quiet
machine, which hides what is looked for. ``checkpoint_cost`` is what a block with a checkpoint takes longer over the
interval at which a training writes one; below 0.03 is the aim. ``cost_error``: its standard error. ``held`` is what
the training itself stood still for.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.report import print_report, versions
from treadle.lm.checkpoint import Checkpoints

EVERY = 240.0  # seconds, as by default
_MOST_TIME = 0.02  # more where writing one takes more than this share of them, as ``Checkpoints`` does
BLOCK = 15.0  # seconds; longer than it takes to write a checkpoint


class _EveryOtherBlock(Checkpoints):
    """Falls due at the first step of every other block of ``steps``; ``asked``: how many steps have asked."""

    def __init__(self, folder: Path, steps: int) -> None:
        super().__init__(folder, every=EVERY)
        self.steps, self.asked, self.longest = steps, 0, 0.0

    def due(self) -> bool:
        super().due()  # which notes how long the last one took to write
        self.longest = max(self.longest, self._took)
        block, step = divmod(self.asked, self.steps)
        self.asked += 1
        return block % 2 == 1 and step == 0


def _fine_tuning(folder: Path, steps: int) -> Callable[..., Any]:
    from treadle.lm.base_model import resolve
    from treadle.lm.packing import TokenizedExample
    from treadle.lm.training import TrainingSettings, train

    draw = random.Random(0)
    examples = [
        TokenizedExample([draw.randrange(100, 40_000) for _ in range(120)], [at >= 40 for at in range(120)])
        for _ in range(200)
    ]
    base, settings = resolve("smollm2-135m-instruct").path, TrainingSettings(token_budget=steps * 3 * 256)
    return lambda **more: train(base, folder / "tuned", examples, settings, **more)


def _pretraining(folder: Path, steps: int) -> Callable[..., Any]:
    import numpy as np
    import torch
    import transformers

    from treadle.lm.initial_model import config_for, shape_for
    from treadle.lm.packed_rows import PackedRows
    from treadle.lm.pretraining import PretrainingSettings, pretrain

    base, vocabulary = folder / "initial", 8_000
    config = config_for("llama", shape_for("llama", 10**7, vocabulary, 512), vocabulary, 512, {"eos": 0, "pad": 0})
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(base)
    ids = np.random.default_rng(0).integers(3, vocabulary, 400 * 512).astype("<u2")
    rows = PackedRows(ids, np.arange(1, 401) * 512, np.arange(1, 401), 512)
    settings = PretrainingSettings(tokens=steps * 8 * 512, batch=8)
    return lambda **more: pretrain(base, folder / "pretrained", rows, settings, **more)


def measure(made: Callable[[Path, int], Callable[..., Any]], seconds: float) -> dict[str, Any]:
    """One training of about ``seconds``. ``SystemExit`` where a block is too short to write a checkpoint in."""
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        a_step = made(folder, 3)().seconds / 3
        steps = max(2, round(BLOCK / a_step))
        pairs = max(3, round(seconds / (2 * steps * a_step)))
        at: list[float] = []
        checkpoints = _EveryOtherBlock(folder / "kept", steps)
        with checkpoints:
            # one step more, for none is written at the last
            total = steps * (2 * pairs + 1) + 1
            made(folder, total)(checkpoints=checkpoints, on_step=lambda _: at.append(time.perf_counter()))
            checkpoints.wait()
    # the first block begins with its second step: nothing tells when its first began
    ends = [at[index] for index in range(steps - 1, len(at), steps)]
    took = [(ends[0] - at[0]) * steps / (steps - 1), *(b - a for a, b in pairwise(ends))]
    longer = [took[i] - (took[i - 1] + took[i + 1]) / 2 for i in range(1, len(took) - 1, 2)]
    if checkpoints.longest > min(took):
        raise SystemExit(f"a checkpoint took {checkpoints.longest:.1f} s to write; expected less than {min(took):.1f}")
    interval = max(EVERY, checkpoints.longest / _MOST_TIME)
    return {
        "steps": total,
        "written": len(longer),
        "block_seconds": round(statistics.mean(took[::2]), 2),
        "longer_seconds": round(statistics.mean(longer), 3),
        "interval": round(interval),
        "checkpoint_cost": round(statistics.mean(longer) / interval, 4),
        "cost_error": round(statistics.stdev(longer) / len(longer) ** 0.5 / interval, 4),
        "held": round(checkpoints.seconds / len(longer) / interval, 4),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What checkpoints cost.")
    parser.add_argument("--seconds", type=float, default=300.0, help="of each training")
    seconds = parser.parse_args().seconds
    kinds = {"fine-tuning": _fine_tuning, "pretraining": _pretraining}
    figures: dict[str, Any] = {name: measure(made, seconds) for name, made in kinds.items()}
    figures["load"] = round(os.getloadavg()[0], 1)
    figures["versions"] = versions(("treadle", "torch", "transformers"))
    print_report("checkpoints", {}, figures)


if __name__ == "__main__":
    main()
