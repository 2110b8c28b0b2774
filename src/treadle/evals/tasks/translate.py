"""Translations: an encoder-decoder that turns a text of one language into one of another."""

from __future__ import annotations

from treadle.evals.report import answer_all
from treadle.evals.task import BASE, Task
from treadle.evals.tasks.sequences import HEADS, copy, fit

TASK = Task(
    name="translate",
    maker="translation",
    metrics=("chrf", "bleu"),
    answer=answer_all,
    fit=fit,
    lora_learning_rate=1e-3,
    gives=frozenset({"answer", "likelihood"}),
    simple={"copy": copy},
    baselines=("copy", BASE),
    architectures=("t5",),
    heads=HEADS,
)
