"""Summaries: an encoder-decoder that turns a text into a short one."""

from __future__ import annotations

from treadle.evals.report import answer_all
from treadle.evals.task import BASE, Task
from treadle.evals.tasks.sequences import HEADS, fit, lead

TASK = Task(
    name="summarize",
    maker="summary",
    metrics=("rouge_l", "rouge_1", "rouge_2"),
    answer=answer_all,
    fit=fit,
    lora_learning_rate=1e-3,
    gives=frozenset({"answer", "likelihood"}),
    simple={"lead_1": lead(1), "lead_3": lead(3)},
    baselines=("lead_1", "lead_3", BASE),
    architectures=("t5",),
    heads=HEADS,
)
