"""One label a text: sentiment, intents, topics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.evals.baselines import majority, tfidf
from treadle.evals.report import classify_all
from treadle.evals.task import Task
from treadle.lm.fitting import Carry, FitSettings, Fitted
from treadle.text.dataset import Example


def fit(base: Path, out: Path, examples: Sequence[Example], settings: FitSettings, carry: Carry) -> Fitted:
    """An encoder with a head over the labels that occur (``lm.classification``)."""
    from treadle.lm.classification import train_classifier

    result = carry(train_classifier, (base, out, *_labeled(examples)), settings.at(_labeled))
    return Fitted(result.loss, result.steps, result.truncated, result.environment, result.figures)


fit.adapts = True  # type: ignore[attr-defined]  # it follows settings.method
fit.judged_by = ("accuracy", "f1")  # type: ignore[attr-defined]


def distill(teacher: Path, out: Path, examples: Sequence[Example], settings: Any, carry: Carry) -> Fitted:
    """A student with fewer of the teacher's layers (``lm.distillation``)."""
    from treadle.lm.distillation import distill_classifier

    found: Fitted = carry(distill_classifier, (teacher, out, *_labeled(examples)), settings.at(_labeled))
    return found


def _labeled(examples: Sequence[Example]) -> tuple[list[str], list[str]]:
    return [example.text for example in examples], [str(example.label) for example in examples]


TASK = Task(
    name="classify",
    maker="classification",
    metrics=("accuracy", "f1_macro", "ece"),
    answer=classify_all,
    fit=fit,
    lora_learning_rate=1e-3,
    distill=distill,
    gives=frozenset({"probabilities"}),
    simple={"majority": majority, "tfidf": tfidf},
    baselines=("majority", "tfidf"),
    architectures=("bert", "t5"),
    heads=("ForSequenceClassification",),
    asking="classify",
    labeled=True,
)
