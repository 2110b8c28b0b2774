"""Train, evaluate the model, its baselines, and whichever model it has to match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.plugins import load
from treadle.evals.report import EvaluationReport
from treadle.lm.model import Model
from treadle.lm.tokenizer_training import TrainedTokenizer
from treadle.lm.tokens import Tokens
from treadle.stages.develop.evaluating import evaluate, evaluate_base, evaluate_simple
from treadle.stages.develop.initializing import beginning_of, initialize
from treadle.stages.develop.pretraining import pretrain_on
from treadle.stages.develop.resuming import PLACE, trainer_for
from treadle.stages.develop.settings import BASELINES, DEFAULT_METRICS, FROM_NOTHING_BASELINES, DevelopSettings
from treadle.stages.develop.training import train, train_classifier
from treadle.text.corpus import Corpus
from treadle.text.dataset import Dataset

CHAMPION = "champion"
ON_CASES = "on cases"


@dataclass(frozen=True)
class Developed:
    """The model, and evaluations on the same test items: ``model``, each baseline, ``champion`` where there is one;
    on the test cases that users' corrections made: ``model on cases`` and ``champion on cases``."""

    model: Model
    evaluations: dict[str, EvaluationReport]

    def public(self) -> dict[str, Any]:
        """As JSON: scores with intervals by evaluation."""
        return {
            "model": self.model.digest,
            "evaluations": {name: report.scores() for name, report in self.evaluations.items()},
        }

    def lines(self) -> list[str]:
        """A table for a person: each evaluation with 95 % intervals."""
        metrics = list(self.evaluations["model"].scores())
        lines = [f"{'[95 % interval]':<18}" + "".join(f"{metric:<24}" for metric in metrics)]
        for name, report in self.evaluations.items():
            scores = report.scores()
            lines.append(f"{name:<18}" + "".join(f"{_interval(scores[metric]):<24}" for metric in metrics))
        return [line.rstrip() for line in lines]


@dataclass(frozen=True)
class Base:
    """The base model: its name, or ``FROM_NOTHING``; its fingerprint. ``license``: of the model whose tokenizer one
    from nothing takes, None where it learns its own."""

    name: str
    fingerprint: str
    license: str | None = None


@dataclass(frozen=True)
class Continuing:
    """How a later turn trains: from which model (None: the base), for how many tokens (None: as the first turn), and
    which share of them stays for the old data. Not at all where a model is ``ready``."""

    start: Model | None = None
    tokens: int | None = None
    replay: float = 0.5
    ready: Model | None = None


def develop(
    driver: Driver,
    settings: DevelopSettings,
    dataset: Dataset,
    tests: Dataset,
    cases: Dataset | None,
    tokens: Tokens | None,
    *,
    cleaned: Corpus,
    continuing: Continuing,
    task: str,
    base: Base,
    tokenizer: TrainedTokenizer | None,
    system_prompt: str | None,
    engine: str,
    standing: Callable[[Model], Model | None],
) -> Developed:
    """Train, evaluate the model, its baselines, and whichever model it has to match (``standing``)."""
    driver.places[PLACE] = trainer_for(settings.on)
    named = {"base_model": base.name, "fingerprint": base.fingerprint}
    begun = _begun(driver, settings, cleaned, dataset, tokenizer, continuing, task, base)
    if continuing.ready is not None:
        model = continuing.ready
        driver.listener.say("nothing is trained: this turn judges a model that came from outside")
    elif tokens is not None:
        model = driver.run(
            train,
            tokens,
            dataset,
            continuing.start,
            begun,
            **named,
            method=settings.method,
            learning_rate=settings.learning_rate,
            budget=(continuing.tokens if continuing.start else None) or settings.tokens,
            max_length=settings.max_length,
            replay=continuing.replay,
        )
    else:
        model = driver.run(
            train_classifier,
            dataset,
            begun,
            **named,
            learning_rate=settings.learning_rate,
            epochs=settings.epochs,
            max_length=settings.max_length,
        )
    metrics = settings.evaluate.metrics or DEFAULT_METRICS[task]
    asked = {
        "metrics": metrics,
        "versions": [load("treadle.metrics", name, driver.folder).version for name in metrics],
        "engine": engine,
        "system_prompt": system_prompt,
        "max_tokens": settings.evaluate.max_tokens,
    }
    evaluations = {"model": driver.run(evaluate, model, tests, task=task, **asked)}
    before = begun or (
        beginning_of(continuing.start or model, driver.runs.store) if settings.init and task == "chat" else None
    )
    usual = BASELINES[task] if settings.init is None or task != "chat" else FROM_NOTHING_BASELINES
    for name in settings.evaluate.baselines if settings.evaluate.baselines is not None else usual:
        if name not in BASELINES[task]:
            raise UserError(f"develop.evaluate.baselines: {name!r} is not for task {task}; expected {BASELINES[task]}")
        if task == "chat":
            if settings.init is not None and before is None:
                driver.listener.say(f"baseline {name} is left out: what the model began from is not there")
                continue
            shots, initial = 3 if name == "few_shot" else 0, before if settings.init is not None else None
            evaluations[name] = driver.run(evaluate_base, tests, initial, **named, shots=shots, **asked)
        else:
            evaluations[name] = driver.run(
                evaluate_simple, dataset, baseline=name, metrics=metrics, versions=asked["versions"]
            )
    against = standing(model)
    if against is not None:
        evaluations[CHAMPION] = driver.run(evaluate, against, tests, task=task, **asked)
    if cases is not None:
        evaluations[f"model {ON_CASES}"] = driver.run(evaluate, model, cases, task=task, **asked)
        if against is not None:
            evaluations[f"{CHAMPION} {ON_CASES}"] = driver.run(evaluate, against, cases, task=task, **asked)
    developed = Developed(model, evaluations)
    if not driver.planning:
        for line in developed.lines():
            driver.listener.say(line)
    return developed


def _begun(
    driver: Driver,
    settings: DevelopSettings,
    cleaned: Corpus,
    dataset: Dataset,
    tokenizer: TrainedTokenizer | None,
    continuing: Continuing,
    task: str,
    base: Base,
) -> Model | None:
    """What fine-tuning begins from where that is not the base as it is: made from nothing, pretrained, or both.

    A chat model of a later turn begins from the one before it; a classifier begins anew each time.
    """
    if continuing.ready is not None or (continuing.start is not None and task == "chat"):
        return None
    begun = None
    if settings.init is not None and tokenizer is not None:
        begun = initialize(driver, settings.init, tokenizer, base.license)
    if settings.pretrain is not None:
        named = {"base_model": base.name, "fingerprint": base.fingerprint}
        begun = pretrain_on(driver, settings.pretrain, cleaned, dataset, begun, **named)
    return begun


def _interval(score: dict[str, Any]) -> str:
    return f"{score['value']:.3g} [{score['low']:.3g}, {score['high']:.3g}]"
