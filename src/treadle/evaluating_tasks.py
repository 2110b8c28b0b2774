"""A task as an evaluation of this project: its items made and remembered, put to a model, looked for in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.plugins import load
from treadle.evals.evaluation_task import EvaluationTask, LoadedTask
from treadle.evals.report import EvaluationReport
from treadle.lm.model import Model
from treadle.project import Project
from treadle.record.record import Record
from treadle.stages.develop.tasks import evaluate_task, make_task_items
from treadle.stages.prepare.quality import gather_examples
from treadle.text.corpus import Corpus
from treadle.text.dataset import Dataset
from treadle.text.evaluation_set import leaks, set_of_examples
from treadle.text.words import words_of


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is evaluated: one of the record, or a base model by name."""

    ref: str
    model: Model | None
    base: str = ""
    fingerprint: str = ""

    @property
    def digest(self) -> str:
        """The model's, or that of the base model's source."""
        return self.model.digest if self.model is not None else self.fingerprint


def task_items(project: Project, driver: Driver, task: LoadedTask) -> Dataset:
    """The items as a dataset; ``UserError`` where they cannot be had."""
    record, given = project.record, task.task
    name = given.items.get("dataset")
    dataset = None
    if name is not None:
        version = record.versions.resolve(str(name))
        if version is None or version.kind != Dataset.kind or set(given.items) != {"dataset"}:
            raise UserError(
                f"task {given.name}: items: expected dataset: a version such as dataset@v1, and nothing else"
            )
        dataset = Dataset(version.digest, record.store)
        if not record.store.has(dataset.digest):
            raise UserError(f"task {given.name}: {name} is no longer in the store; treadle pull fetches it")
    column = task.text_column()
    corpus, first = (None, "") if dataset else _documents(project, driver, given.items, column, f"{given.name}: items")
    shown, second = None, ""
    if given.few_shot is not None and given.few_shot.items is not None:
        where = f"{given.name}: few_shot.items"
        shown, second = _documents(project, driver, given.few_shot.items, column, where)
    return driver.run(
        make_task_items,
        corpus,
        dataset,
        shown,
        task=given.model_dump(),
        function=task.function,
        code=task.code,
        columns=[first, second],
    )


def task_report(
    project: Project, driver: Driver, task: EvaluationTask, subject: Subject, items: Dataset, metrics: list[str]
) -> EvaluationReport:
    """The evaluation of a model of this project, or of a base model."""
    if project.file.task != "chat" and subject.model is not None:
        raise UserError(
            f"evaluate {subject.ref}: a model for task {project.file.task} does no task that is asked in words"
        )
    return driver.run(
        evaluate_task,
        subject.model,
        items,
        base_model="" if subject.model is not None else subject.base,
        fingerprint="" if subject.model is not None else subject.fingerprint,
        metrics=metrics,
        versions=[load("treadle.metrics", name, driver.folder).version for name in metrics],
        engine=project.file.deploy.local_engine,
        system_prompt=project.file.deploy.system_prompt if task.chat else None,
    )


def told(task: LoadedTask) -> dict[str, Any]:
    """As JSON."""
    return {"name": task.task.name, "version": task.task.version, "digest": task.digest, "kind": task.task.kind}


def seen_in_training(record: Record, subject: Subject, items: Dataset) -> frozenset[int] | None:
    """Places of items that, or nearly that, it was fine-tuned on, also in the turns before; None where that is not
    here."""
    tests = items.examples("test")
    seen: set[int] = set()
    digest: str | None = subject.digest
    while digest is not None:
        made = record.runs.producer(digest)
        learned = made.inputs.get("dataset") if made is not None else None
        if made is None or not isinstance(learned, str) or not record.store.has(learned):
            return None
        examples = Dataset(learned, record.store).examples("train")
        seen |= leaks(set_of_examples("train", examples), tests).keys()
        same = {(_said(each.question), _said(each.answer)) for each in examples}  # also those of a few words
        seen |= {place for place, each in enumerate(tests) if (_said(each.question), _said(each.answer)) in same}
        digest = made.inputs.get("start")
    return frozenset(seen)


def _documents(project: Project, driver: Driver, source: dict[str, Any], column: str, where: str) -> tuple[Corpus, str]:
    """The source's documents; a column that the task asks for is their text where the source does not say."""
    fields = dict(source.get("fields") or {})
    if source.get("type") == "files" and column and not {"text", "messages", "prompt", "chosen"} & set(fields):
        source = {**source, "fields": {**fields, "text": column}}
    text = str((source.get("fields") or {}).get("text", ""))
    return gather_examples(driver, source, project.record.erasures.suppression(), f"task {where}"), text


def _said(text: str) -> tuple[str, ...]:
    return tuple(words_of(text))
