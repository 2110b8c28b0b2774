"""What checkpoints cost at the default interval: ``python -m benchmarks.checkpoints [--seconds 400]``.

Two trainings take the same steps, one without checkpoints and one with: fine-tuning SmolLM2-135M, and pretraining a
Llama of 10M parameters from random weights. ``checkpoint_cost`` is the time that the second takes longer, over that of
the first; below 0.03 is the aim. ``held`` is what the training itself stood still for, which noise does not touch.
``written``: checkpoints that fell due; a run in which none did tells nothing, and ends with an error.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import print_report, versions

EVERY = 240.0  # seconds, as by default


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
    """Both trainings, as long as about ``seconds`` each."""
    from treadle.lm.checkpoint import Checkpoints

    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        steps = max(3, round(3 * seconds / made(folder, 3)().seconds))
        took, stood_still = [], 0.0
        for kept in (False, True):
            with Checkpoints(folder / "kept", every=EVERY) as checkpoints:
                result = made(folder, steps)(checkpoints=checkpoints if kept else None)
            took.append(result.seconds)
            stood_still = result.checkpoint_seconds
        written = len(list((folder / "kept").glob("*.checkpoint")))
    if not written:
        raise SystemExit(f"no checkpoint fell due in {took[1]:.0f} s; expected one every {EVERY:.0f}: raise --seconds")
    return {
        "steps": steps,
        "written": written,
        "seconds": [round(each, 1) for each in took],
        "checkpoint_cost": round(took[1] / took[0] - 1, 4),
        "held": round(stood_still / took[1], 4),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What checkpoints cost.")
    parser.add_argument("--seconds", type=float, default=400.0, help="of each training")
    seconds = parser.parse_args().seconds
    kinds = {"fine-tuning": _fine_tuning, "pretraining": _pretraining}
    figures: dict[str, Any] = {name: measure(made, seconds) for name, made in kinds.items()}
    figures["load"] = round(os.getloadavg()[0], 1)
    figures["versions"] = versions(("treadle", "torch", "transformers"))
    print_report("checkpoints", {}, figures)


if __name__ == "__main__":
    main()
