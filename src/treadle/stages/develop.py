"""Develop: fine-tune a base model on the dataset, and say honestly how good it is, against what costs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from treadle.core.config import Settings
from treadle.core.digest import blake3_bytes
from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.plugins import load
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.evals.report import EvaluationReport, answer_all, classify_all, commit, load_metrics
from treadle.lm.model import ABOUT, FORMAT, Model
from treadle.lm.tokens import Tokens
from treadle.record.version import NOT_RECORDED
from treadle.text.dataset import Dataset, Example

DEFAULT_METRICS = {"chat": ["log_likelihood", "perplexity", "rouge_l"], "classify": ["accuracy", "f1_macro", "ece"]}
BASELINES = {"chat": ("base", "few_shot"), "classify": ("majority", "tfidf")}
CHAMPION = "champion"
ON_CASES = "on cases"
FEEDBACK = "feedback"  # the field of an example that is a user's correction


class EvaluateSettings(Settings):
    """How good a model is, and compared with what."""

    metrics: list[str] | None = Field(None, description="by name, or module:function of your own")
    baselines: list[str] | None = Field(None, description="chat: base, few_shot; classify: majority, tfidf")
    max_tokens: int = Field(64, ge=1, description="of an answer while evaluating")


class DevelopSettings(Settings):
    """From which model, how, and for how long."""

    base_model: str = Field(description="a known model, a hub id, a folder or a GGUF")
    method: Literal["full", "lora"] = Field("full", description="all weights, or a low-rank adapter that is merged")
    learning_rate: float = Field(1e-4, gt=0, description="highest, after warm-up")
    tokens: int = Field(34_000, ge=1, description="chat: training budget in tokens")
    epochs: int = Field(3, ge=1, description="classify: passes over the training split")
    max_length: int = Field(256, ge=8, description="tokens of one example, at most")
    evaluate: EvaluateSettings = EvaluateSettings()

    @model_validator(mode="after")
    def _known_baselines(self) -> DevelopSettings:
        known = {name for names in BASELINES.values() for name in names}
        for name in self.evaluate.baselines or ():
            if name not in known:
                raise ValueError(f"evaluate.baselines: {name!r} is not one of {', '.join(sorted(known))}")
        return self


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
    continuing: Continuing,
    task: str,
    fingerprint: str,
    system_prompt: str | None,
    engine: str,
    standing: Callable[[Model], Model | None],
) -> Developed:
    """Train, evaluate the model, its baselines, and whichever model it has to match (``standing``)."""
    base = {"base_model": settings.base_model, "fingerprint": fingerprint}
    if continuing.ready is not None:
        model = continuing.ready
        driver.listener.say("nothing is trained: this turn judges a model that came from outside")
    elif tokens is not None:
        model = driver.run(
            train,
            tokens,
            dataset,
            continuing.start,
            **base,
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
            **base,
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
    for name in settings.evaluate.baselines if settings.evaluate.baselines is not None else BASELINES[task]:
        if name not in BASELINES[task]:
            raise UserError(f"develop.evaluate.baselines: {name!r} is not for task {task}; expected {BASELINES[task]}")
        if task == "chat":
            shots = 3 if name == "few_shot" else 0
            evaluations[name] = driver.run(evaluate_base, tests, **base, shots=shots, **asked)
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


@step(version=2, packages=("torch", "transformers"), tolerance=0.05)
def train(
    tokens: Tokens,
    dataset: Dataset,
    start: Model | None,
    *,
    base_model: str,
    fingerprint: str,
    method: Literal["full", "lora"],
    learning_rate: float,
    budget: int,
    max_length: int,
    replay: float,
    seed: int,
    run: Run,
) -> Model:
    """Fine-tune a causal language model on the assistant's turns, for a fixed budget of tokens; from ``start`` where
    there is one, else from the base.

    Corrections come first, the newest before older ones, and leave the share ``replay`` of the budget to the rest.
    The model's documents are exactly those of the examples it saw, and those of the model it started from.
    """
    from treadle.lm.base_model import resolve
    from treadle.lm.training import StepReport, TrainingSettings
    from treadle.lm.training import train as fine_tune

    base = resolve(base_model)
    _same(base.digest, fingerprint, base_model)
    seen = dataset.examples("train")
    places = _mixed(tokens.lengths("train"), seen, budget, replay, f"{seed} {start.digest if start else ''}")
    every = tokens.examples("train")
    examples = [every[place] for place in places]
    settings = TrainingSettings(
        method=method, learning_rate=learning_rate, token_budget=budget, width=max_length, seed=seed
    )

    def on_step(report: StepReport) -> None:
        run.log(report.step, loss=report.loss, tokens_per_second=report.tokens_per_second, lr=report.learning_rate)
        note = f"loss {report.loss:.2f}, {report.tokens_per_second:.0f} tok/s"
        run.progress(report.step, report.steps, "steps", note)

    with run.create(Model) as model:
        result = fine_tune(start.path() if start else base.path, model.path, examples, settings, on_step)
        model.add_documents(name for place in result.examples_seen for name in seen[places[place]].documents)
        how: dict[str, Any] = {"method": method, "budget": budget, "learning_rate": learning_rate}
        if start is not None:
            model.add_documents(start.document_ids())
            how["start"] = start.digest
        _write_about(model.path, base, "chat", how, came_from(start))
        run.summary(
            loss_first=result.first_loss,
            loss=result.loss,
            tokens=result.tokens,
            steps=result.steps,
            tokens_per_second=result.tokens / result.seconds,
            examples=len(result.examples_seen),
            threads=float(result.environment["threads"]),
        )
        return model.commit()


def _mixed(lengths: Sequence[int], examples: Sequence[Example], budget: int, replay: float, salt: str) -> list[int]:
    """Places of the examples that a training run takes: all, or corrections and a sample of the rest where there are
    corrections or the model was trained before. ``salt`` makes each run's sample another one."""
    corrections = [place for place, example in enumerate(examples) if FEEDBACK in example.fields]
    if not corrections and salt.endswith(" "):
        return list(range(len(examples)))
    corrections.sort(key=lambda place: (examples[place].fields[FEEDBACK], place), reverse=True)
    first = set(corrections)
    rest = [place for place in range(len(examples)) if place not in first]
    rest.sort(key=lambda place: blake3_bytes(f"{salt} {examples[place].id}".encode()))
    taken: list[int] = []
    room = int(budget * (1 - replay))
    for place in corrections:
        if lengths[place] <= room:
            room -= lengths[place]
            taken.append(place)
    room = budget - sum(lengths[place] for place in taken)
    for place in rest:
        if room <= 0:
            break
        room -= lengths[place]
        taken.append(place)
    return taken


@step(version=1, packages=("torch", "transformers"), tolerance=0.05)
def train_classifier(
    dataset: Dataset,
    *,
    base_model: str,
    fingerprint: str,
    learning_rate: float,
    epochs: int,
    max_length: int,
    seed: int,
    run: Run,
) -> Model:
    """Fine-tune an encoder with a classification head on all of the training split."""
    from treadle.lm.base_model import resolve
    from treadle.lm.classification import ClassifierSettings
    from treadle.lm.classification import train_classifier as fine_tune

    base = resolve(base_model)
    _same(base.digest, fingerprint, base_model)
    examples = dataset.examples("train")
    settings = ClassifierSettings(learning_rate=learning_rate, epochs=epochs, max_length=max_length, seed=seed)

    def on_step(step: int, steps: int, loss: float) -> None:
        run.log(step, loss=loss)
        run.progress(step, steps, "steps", f"loss {loss:.2f}")

    with run.create(Model) as model:
        texts, labels = [example.text for example in examples], [str(example.label) for example in examples]
        result = fine_tune(base.path, model.path, texts, labels, settings, on_step)
        model.add_documents(name for example in examples for name in example.documents)
        _write_about(model.path, base, "classify", {"epochs": epochs, "learning_rate": learning_rate})
        run.summary(loss=result.loss, steps=result.steps, truncated=result.truncated, examples=len(examples))
        return model.commit()


@step(version=1, packages=("openvino-genai", "tokenizers", "torch", "transformers"), tolerance=0.05)
def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    task: str,
    metrics: list[str],
    versions: list[str],
    engine: str,
    system_prompt: str | None,
    max_tokens: int,
    run: Run,
) -> EvaluationReport:
    """The model on the test split: answers, likelihood of the references, and what the metrics say, with intervals."""
    examples, loaded = dataset.examples("test"), load_metrics(metrics, run)
    if task == "chat":
        asked: dict[str, Any] = {"engine": engine, "system_prompt": system_prompt, "max_tokens": max_tokens}
        evaluation = answer_all(model.path(), examples, loaded, run, **asked)
    else:
        evaluation = classify_all(model.path(), examples, run)
    return commit(run, evaluation, loaded, dataset.split_document_ids("test"))


@step(version=1, packages=("openvino-genai", "tokenizers", "torch", "transformers"), tolerance=0.05)
def evaluate_base(
    dataset: Dataset,
    *,
    base_model: str,
    fingerprint: str,
    shots: int,
    metrics: list[str],
    versions: list[str],
    engine: str,
    system_prompt: str | None,
    max_tokens: int,
    seed: int,
    run: Run,
) -> EvaluationReport:
    """The base model with the same prompt, and ``shots`` worked examples from training before each question."""
    from treadle.evals.baselines import worked_examples
    from treadle.lm.base_model import resolve

    base = resolve(base_model)
    _same(base.digest, fingerprint, base_model)
    worked: Sequence[Example] = worked_examples(dataset.examples("train"), seed=seed, count=shots) if shots else ()
    loaded = load_metrics(metrics, run)
    asked: dict[str, Any] = {"engine": engine, "system_prompt": system_prompt, "max_tokens": max_tokens}
    evaluation = answer_all(base.path, dataset.examples("test"), loaded, run, worked=worked, **asked)
    return commit(run, evaluation, loaded, dataset.split_document_ids("test"))


@step(version=1, packages=("scikit-learn",))
def evaluate_simple(
    dataset: Dataset, *, baseline: str, metrics: list[str], versions: list[str], seed: int, run: Run
) -> EvaluationReport:
    """What needs no language model: the most frequent label, or weighed words."""
    from treadle.evals import baselines
    from treadle.evals.results import Evaluation
    from treadle.evals.runner import items_from

    training, items = dataset.examples("train"), items_from(dataset.examples("test"))
    if baseline == "majority":
        outputs = baselines.majority(training, items)
    else:
        outputs = baselines.tfidf(training, items, seed=seed)
    evaluation = Evaluation(baseline, tuple(items), tuple(outputs))
    return commit(run, evaluation, load_metrics(metrics, run), dataset.split_document_ids("test"))


def _same(digest: str, fingerprint: str, name: str) -> None:
    if digest != fingerprint:
        raise UserError(f"develop.base_model: {name} changed while it was read; run the same command again")


def came_from(start: Model | None) -> dict[str, str] | None:
    """What is known of the base of a model that came from outside, or was trained from one; None otherwise."""
    base = start.about()["base_model"] if start is not None else None
    return base if base is not None and base["name"] == NOT_RECORDED else None


def _write_about(folder: Any, base: Any, task: str, how: dict[str, Any], known: dict[str, str] | None = None) -> None:
    about = {
        "format": FORMAT,
        "task": task,
        "base_model": known
        or {"name": base.name, "digest": base.digest, "license": base.license, "origin": base.origin},
        "training": how,
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True))


def _interval(score: dict[str, Any]) -> str:
    return f"{score['value']:.3g} [{score['low']:.3g}, {score['high']:.3g}]"
