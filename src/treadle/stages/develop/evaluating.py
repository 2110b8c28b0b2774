"""The evaluation steps: the model, the base model, and what needs none, on the same items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.evals.report import EvaluationReport, answer_all, commit, load_metrics
from treadle.evals.task import load_task
from treadle.lm.model import Model
from treadle.stages.develop.training import same_base
from treadle.text.dataset import Dataset, Example


@step(
    name="develop.evaluate",
    version=2,
    packages=("openvino-genai", "tokenizers", "torch", "transformers"),
    tolerance=0.05,
)
def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    task: str,
    task_version: str,
    metrics: list[str],
    versions: list[str],
    engine: str,
    system_prompt: str | None,
    max_tokens: int,
    run: Run,
) -> EvaluationReport:
    """The model on the test split: answers, likelihood of the references, and what the metrics say, with intervals."""
    examples, loaded = dataset.examples("test"), load_metrics(metrics, run)
    asked: dict[str, Any] = {"engine": engine, "system_prompt": system_prompt, "max_tokens": max_tokens}
    evaluation = load_task(task, run.folder).answer(model.path(), examples, loaded, run, **asked)
    return commit(run, evaluation, loaded, dataset.split_document_ids("test"))


@step(
    name="develop.score",
    version=2,
    packages=("openvino-genai", "tokenizers", "torch", "transformers"),
    tolerance=0.05,
)
def score(
    model: Model,
    dataset: Dataset,
    *,
    task: str,
    task_version: str,
    metrics: list[str],
    versions: list[str],
    engine: str,
    system_prompt: str | None,
    max_tokens: int,
    run: Run,
) -> EvaluationReport:
    """As `develop.evaluate`, on items that somebody named: scores that never stand for those on the project's tests."""
    asked: dict[str, Any] = {"engine": engine, "system_prompt": system_prompt, "max_tokens": max_tokens}
    return evaluate.function(
        model, dataset, task=task, task_version=task_version, metrics=metrics, versions=versions, **asked, run=run
    )


@step(
    name="develop.evaluate_base",
    version=3,
    packages=("openvino-genai", "tokenizers", "torch", "transformers"),
    tolerance=0.05,
)
def evaluate_base(
    dataset: Dataset,
    begun: Model | None,
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
    """The base model, or ``begun``, which was made from nothing, with the same prompt, and ``shots`` worked examples
    from training before each question."""
    from treadle.evals.baselines import worked_examples

    base = same_base(base_model, fingerprint, begun)
    worked: Sequence[Example] = worked_examples(dataset.examples("train"), seed=seed, count=shots) if shots else ()
    loaded = load_metrics(metrics, run)
    asked: dict[str, Any] = {"engine": engine, "system_prompt": system_prompt, "max_tokens": max_tokens}
    evaluation = answer_all(base.path, dataset.examples("test"), loaded, run, worked=worked, **asked)
    return commit(run, evaluation, loaded, dataset.split_document_ids("test"))


@step(name="develop.evaluate_simple", version=2, packages=("scikit-learn",))
def evaluate_simple(
    dataset: Dataset,
    *,
    task: str,
    task_version: str,
    baseline: str,
    metrics: list[str],
    versions: list[str],
    seed: int,
    run: Run,
) -> EvaluationReport:
    """What needs no language model: the most frequent label, weighed words, whatever the task has."""
    from treadle.evals.results import Evaluation
    from treadle.evals.runner import items_from

    training, items = dataset.examples("train"), items_from(dataset.examples("test"))
    outputs = load_task(task, run.folder).simple[baseline](training, items, seed=seed)
    evaluation = Evaluation(baseline, tuple(items), tuple(outputs))
    return commit(run, evaluation, load_metrics(metrics, run), dataset.split_document_ids("test"))
