"""A training in a process that a test kills: ``python killed_training.py KIND BASE OUT KEPT``.

It says each step when it is done, and the last line is the number of steps that came from a checkpoint.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from treadle.lm.answer_pairs import pair_of
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.classification import train_classifier
from treadle.lm.distillation import DistillSettings, distill_classifier
from treadle.lm.distilled_generator import distill_generator
from treadle.lm.embedding_training import Pair, train_embedder
from treadle.lm.fitting import FitSettings
from treadle.lm.held_out import Looks
from treadle.lm.packed_rows import PackedRows
from treadle.lm.packing import TokenizedExample
from treadle.lm.preference import PreferenceSettings, train_on_preferences
from treadle.lm.pretraining import PretrainingSettings, pretrain
from treadle.lm.reading import train_reader
from treadle.lm.sequence_to_sequence import train_sequences
from treadle.lm.tagging import train_tagger
from treadle.lm.training import TrainingSettings, train

# By kind, the family of the model that it begins from.
KINDS = {
    "pretrain": "gpt2",
    "full": "gpt2",
    "lora": "llama",
    "classifier": "gpt2",
    "tagger": "bert",
    "reader": "bert",
    "embedder": "bert",
    "sequences": "t5",
    "preferences": "llama",
    "student": "teacher",
    "small generator": "llama",
    "classifier's adapters": "bert",
    "tagger's adapters": "bert",
    "reader's adapters": "bert",
    "embedder's adapters": "bert",
    "sequences' adapters": "t5",
}
_WORDS = ["object", "value", "function", "user", "returns", "system"]


def _texts(count: int) -> list[str]:
    draw = random.Random(1)
    return [" ".join(draw.choices(_WORDS, k=6)) for _ in range(count)]


def _examples(count: int) -> list[TokenizedExample]:
    draw = random.Random(2)
    sizes = [draw.randint(6, 40) for _ in range(count)]
    return [
        TokenizedExample([draw.randrange(3, 320) for _ in range(size)], [i >= size // 2 for i in range(size)])
        for size in sizes
    ]


def training_of(kind: str, base: Path, out: Path, steps: int, *, watched: bool) -> Callable[..., Any]:
    """A training of about so many steps, to be called with ``on_step`` and ``checkpoints``."""
    texts, labels = _texts(24), ["a", "b"] * 12
    fit = FitSettings(3e-4, max(1, steps // 6), 32, batch_size=4, threads=1, precision="float32")
    distill = DistillSettings(3e-4, fit.epochs, 32, 0, batch_size=4, threads=1, precision="float32")
    looks = Looks(every=3)
    pairs = [pair_of(*_examples(40)[at : at + 2]) for at in range(0, 40, 2)]
    embedded = [Pair(text, text[::-1], ("wrong",) if at % 5 == 0 else ()) for at, text in enumerate(_texts(70))]
    spans = [[(0, 6, "PLACE")] for _ in texts]
    places: Any = [(0, 6) for _ in texts]
    of: dict[str, tuple[Any, tuple[Any, ...], Any, Any]] = {
        "classifier": (train_classifier, (texts, labels), fit, (texts[:6], labels[:6])),
        "tagger": (train_tagger, (texts, spans), fit, (texts[:6], spans[:6])),
        "reader": (train_reader, (texts, texts, places), fit, (texts[:6], texts[:6], places[:6])),
        "embedder": (train_embedder, (embedded,), replace(fit, epochs=max(1, steps // 3)), embedded[:8]),
        "sequences": (train_sequences, (texts, texts[::-1], ""), fit, (texts[:6], texts[:6])),
        "preferences": (
            train_on_preferences,
            (pairs, pairs[:6]),
            PreferenceSettings(batch=4, epochs=max(1, steps // 5), width=48, threads=1),
            (),
        ),
        "student": (distill_classifier, (texts, ["LABEL_0", "LABEL_1"] * 12), distill, (texts[:6], ["LABEL_0"] * 6)),
        "small generator": (
            distill_generator,
            (_examples(30),),
            replace(distill, max_length=48, epochs=max(1, steps // 5)),
            _examples(4),
        ),
    }
    method: Any = kind
    tuned = TrainingSettings(method, token_budget=steps * 2 * 48, rows=2, width=48, threads=1)
    of |= {name: (train, (_examples(30),), tuned, _examples(4)) for name in ("full", "lora")}
    if kind == "pretrain":
        ids = np.random.default_rng(0).integers(3, 300, 40 * 16).astype("<u2")
        rows = PackedRows(ids, np.arange(1, 41) * 16, np.arange(1, 41), 16)
        settings: Any = PretrainingSettings(tokens=steps * 4 * 16, batch=4, threads=1)
        return lambda **more: pretrain(base, out, rows, settings, **more)
    name, _, adapters = kind.partition("'")
    function, arguments, settings, samples = of[name]
    if adapters:
        settings = replace(settings, method="lora", learning_rate=3e-3)
    if watched:
        settings = replace(settings, looks=looks.of(samples))
    return lambda **more: function(base, out, *arguments, settings, **more)


STEPS = 60


def main(kind: str, base: str, out: str, kept: str) -> None:
    training = training_of(kind, Path(base), Path(out), STEPS, watched=kind != "pretrain")

    def say(report: Any) -> None:
        sys.stdout.write(f"{report.step}\n")
        sys.stdout.flush()
        time.sleep(0.01)  # so that a kill comes near the step it is meant for

    with Checkpoints(Path(kept), every=0.0) as checkpoints:
        result = training(on_step=say, checkpoints=checkpoints)
    resumed = result.resumed if hasattr(result, "resumed") else int(result.figures["resumed"])
    sys.stdout.write(f"{resumed}\n")


if __name__ == "__main__":
    main(*sys.argv[1:5])
