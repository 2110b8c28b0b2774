"""Train, evaluate the model, its baselines, and whichever model it has to match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.plugins import load
from treadle.evals.metric import load_metric
from treadle.evals.report import EvaluationReport
from treadle.evals.task import FEW_SHOT, FITS, Task, task_version
from treadle.lm.fitting import adapts
from treadle.lm.model import Model
from treadle.lm.tokenizer_training import TrainedTokenizer
from treadle.lm.tokens import Tokens
from treadle.stages.develop.beginning import beside_of
from treadle.stages.develop.distilling import distill_on
from treadle.stages.develop.evaluating import evaluate, evaluate_base, evaluate_simple
from treadle.stages.develop.fitting import fit
from treadle.stages.develop.initializing import beginning_of, initialize
from treadle.stages.develop.preferring import METRIC, prefer_on
from treadle.stages.develop.pretraining import pretrain_on
from treadle.stages.develop.resuming import PLACE, trainer_for
from treadle.stages.develop.settings import DevelopSettings
from treadle.stages.develop.training import train
from treadle.text.corpus import Corpus
from treadle.text.dataset import Dataset

CHAMPION = "champion"
BEFORE = "before_pairs"
TEACHER = "teacher"
ON_CASES = "on cases"


@dataclass(frozen=True)
class Developed:
    """The model, and evaluations on the same test items: ``model``, ``before_pairs`` and ``teacher`` (what it was
    before it learned from pairs, and from whom, where it did), each baseline, ``champion`` where there is one; on the
    test cases that users' corrections made: ``model on cases`` and ``champion on cases``."""

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
            told = [_interval(scores[metric]) if metric in scores else "-" for metric in metrics]
            lines.append(f"{name:<18}" + "".join(f"{each:<24}" for each in told))
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
    task: Task,
    base: Base,
    tokenizer: TrainedTokenizer | None,
    system_prompt: str | None,
    engine: str,
    standing: Callable[[Model], Model | None],
    teacher: Model | None = None,
) -> Developed:
    """Train, evaluate the model, its baselines, and whichever model it has to match (``standing``)."""
    driver.places[PLACE] = trainer_for(settings.on)
    named = {"base_model": base.name, "fingerprint": base.fingerprint}
    chosen = {"task": task.name, "task_version": task_version(task.name, driver.folder)}
    metrics = settings.evaluate.metrics or [*task.metrics, *([METRIC] if settings.prefer else [])]
    task.require([load_metric(name, driver.folder) for name in metrics])
    _check_splits(settings, dataset, tests)
    usual = _baselines(settings, task)
    # What needs no language model finds no reference probable.
    given = [name for name in metrics if load_metric(name, driver.folder).needs != "likelihood"]
    begun = _begun(driver, settings, cleaned, dataset, tokenizer, continuing, task, base)
    chain = _Training(driver, settings, task, dataset, system_prompt, chosen, named)
    earlier: dict[str, Model] = {}
    if continuing.ready is not None:
        model = continuing.ready
        driver.listener.say("nothing is trained: this turn judges a model that came from outside")
    else:
        model, earlier = chain.train(tokens, continuing, begun, teacher)
    asked = {
        "metrics": metrics,
        "versions": _versions(metrics, driver),
        "engine": engine,
        "system_prompt": system_prompt,
        "max_tokens": settings.evaluate.max_tokens,
    }
    evaluations = {"model": driver.run(evaluate, model, tests, **chosen, **asked)}
    for name, known in earlier.items():
        evaluations[name] = driver.run(evaluate, known, tests, **chosen, **asked)
    before = begun or (
        beginning_of(continuing.start or model, driver.runs.store) if settings.init and task.fit is None else None
    )
    for name in usual:
        if name not in task.simple:
            if settings.init is not None and before is None:
                driver.listener.say(f"baseline {name} is left out: what the model began from is not there")
                continue
            shots, initial = 3 if name == FEW_SHOT else 0, before if settings.init is not None else None
            evaluations[name] = driver.run(evaluate_base, tests, initial, **chosen, **named, shots=shots, **asked)
        elif given:
            versions = _versions(given, driver)
            evaluations[name] = driver.run(
                evaluate_simple, dataset, **chosen, baseline=name, metrics=given, versions=versions
            )
    against = standing(model)
    if against is not None:
        evaluations[CHAMPION] = driver.run(evaluate, against, tests, **chosen, **asked)
    if cases is not None:
        kept = [name for name in metrics if name != METRIC]  # who corrects need not have had an answer before
        on_cases = {**asked, "metrics": kept, "versions": _versions(kept, driver)}
        evaluations[f"model {ON_CASES}"] = driver.run(evaluate, model, cases, **chosen, **on_cases)
        if against is not None:
            evaluations[f"{CHAMPION} {ON_CASES}"] = driver.run(evaluate, against, cases, **chosen, **on_cases)
    developed = Developed(model, evaluations)
    if not driver.planning:
        for line in developed.lines():
            driver.listener.say(line)
    return developed


def _check_splits(settings: DevelopSettings, dataset: Dataset, tests: Dataset) -> None:
    """``UserError`` where there is nothing to judge by in the end, or under way: before what is to be judged is
    trained."""
    if not tests.pending and (count := tests.counts()["test"]) < 2:
        raise UserError(
            f"develop: the test split has {count} examples, and a score needs two or more; give prepare.split a larger"
            " share of test, or add data"
        )
    if settings.looks is not None and not dataset.pending and not dataset.counts()["validation"]:
        raise UserError(
            "develop.keep_best and stop_early judge by the validation split, which is empty; leave them out, or give"
            " prepare.split a larger share of validation"
        )


@dataclass(frozen=True)
class _Training:
    """The steps that make a model of a dataset, each beginning from what came of the one before."""

    driver: Driver
    settings: DevelopSettings
    task: Task
    dataset: Dataset
    system_prompt: str | None
    chosen: dict[str, str]
    named: dict[str, str]

    def train(
        self, tokens: Tokens | None, continuing: Continuing, begun: Model | None, teacher: Model | None
    ) -> tuple[Model, dict[str, Model]]:
        """The model, and those that it was before it learned from pairs or from a teacher, where it did."""
        driver, settings, earlier = self.driver, self.settings, dict[str, Model]()
        if teacher is not None:
            model = teacher
        elif settings.prefer is not None and settings.prefer.instead:
            start = continuing.start or begun
            model = prefer_on(driver, settings, self.dataset, start, self.system_prompt, **self.named)
        else:
            model = self._fine_tune(tokens, continuing, begun)
            if settings.prefer is not None:
                earlier[BEFORE] = model
                model = prefer_on(driver, settings, self.dataset, model, self.system_prompt, **self.named)
        if settings.distill is None:
            return model, earlier
        student = distill_on(driver, settings, self.task, self.dataset, model, self.system_prompt, **self.chosen)
        return student, {**earlier, TEACHER: model}

    def _fine_tune(self, tokens: Tokens | None, continuing: Continuing, begun: Model | None) -> Model:
        settings = self.settings
        own_way = settings.fit is not None or (self.task.fit is not None and not adapts(self.task.fit))
        method = "full" if own_way else settings.method  # with pairs alone adapters may be asked for all the same
        usual = self.task.lora_learning_rate if method == "lora" else self.task.learning_rate
        rate = settings.learning_rate or usual or self.task.learning_rate
        if tokens is None or settings.fit is not None:
            own = load(FITS, settings.fit, self.driver.folder).version if settings.fit else ""
            trainer = {"trainer": settings.fit, "trainer_version": own}
            rates: dict[str, Any] = {
                "method": method,
                "learning_rate": rate,
                "epochs": settings.epochs,
                "max_length": settings.max_length,
                "looks": settings.looks,
            }
            return self.driver.run(fit, self.dataset, begun, **self.chosen, **trainer, **self.named, **rates)
        return self.driver.run(
            train,
            tokens,
            self.dataset,
            continuing.start,
            begun or beside_of(self.driver, continuing.start, settings.method),
            **self.named,
            method=settings.method,
            learning_rate=rate,
            budget=(continuing.tokens if continuing.start else None) or settings.tokens,
            max_length=settings.max_length,
            replay=continuing.replay,
            looks=settings.looks,
        )


def _versions(metrics: list[str], driver: Driver) -> list[str]:
    return [load("treadle.metrics", name, driver.folder).version for name in metrics]


def compared(settings: DevelopSettings, task: Task) -> list[str]:
    """What is evaluated beside the model, where it is there."""
    own = [name for name, made in ((BEFORE, settings.prefer), (TEACHER, settings.distill)) if made is not None]
    return [*own, *_baselines(settings, task), CHAMPION]


def _baselines(settings: DevelopSettings, task: Task) -> list[str]:
    """Those the file names, or the task's own; a generator from nothing learns little from worked examples, and has no
    room for them."""
    names = settings.evaluate.baselines
    if names is None:
        return [name for name in task.baselines if settings.init is None or name != FEW_SHOT]
    for name in names:
        if name not in task.baselines:
            raise UserError(
                f"develop.evaluate.baselines: {name!r} is not of task {task.name}; expected {task.baselines}"
            )
    return names


def _begun(
    driver: Driver,
    settings: DevelopSettings,
    cleaned: Corpus,
    dataset: Dataset,
    tokenizer: TrainedTokenizer | None,
    continuing: Continuing,
    task: Task,
    base: Base,
) -> Model | None:
    """What fine-tuning begins from where that is not the base as it is: made from nothing, pretrained, or both.

    A chat model of a later turn begins from the one before it; a classifier begins anew each time.
    """
    if continuing.ready is not None or (continuing.start is not None and task.fit is None):
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
