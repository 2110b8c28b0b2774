"""One label a text: sentiment, intents, topics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.evals.baselines import majority, tfidf
from treadle.evals.report import classify_all
from treadle.evals.task import Task
from treadle.lm.fitting import Carry, FitSettings, Fitted, OnStep
from treadle.text.dataset import Example


def fit(
    base: Path, out: Path, examples: Sequence[Example], settings: FitSettings, on_step: OnStep, carry: Carry
) -> Fitted:
    """An encoder with a head over the labels that occur (``lm.classification``)."""
    from treadle.lm.classification import ClassifierSettings, train_classifier

    how = ClassifierSettings(
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        max_length=settings.max_length,
        seed=settings.seed,
    )
    texts, labels = [example.text for example in examples], [str(example.label) for example in examples]
    result = carry(train_classifier, (base, out, texts, labels), how, on_step)
    figures = {"resumed": result.resumed, "spikes": len(result.spikes), "checkpoint_seconds": result.checkpoint_seconds}
    return Fitted(result.loss, result.steps, result.truncated, result.environment, figures)


def distill(teacher: Path, out: Path, examples: Sequence[Example], settings: Any, on_step: OnStep) -> Fitted:
    """A student with fewer of the teacher's layers (``lm.distillation``)."""
    from treadle.lm.distillation import distill_classifier

    texts, labels = [example.text for example in examples], [str(example.label) for example in examples]
    return distill_classifier(teacher, out, texts, labels, settings, on_step)


TASK = Task(
    name="classify",
    maker="classification",
    metrics=("accuracy", "f1_macro", "ece"),
    answer=classify_all,
    fit=fit,
    carries=True,
    distill=distill,
    gives=frozenset({"probabilities"}),
    simple={"majority": majority, "tfidf": tfidf},
    baselines=("majority", "tfidf"),
    architectures=("bert", "t5"),
    heads=("ForSequenceClassification",),
    asking="classify",
    labeled=True,
)
