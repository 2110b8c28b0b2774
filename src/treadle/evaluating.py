"""``treadle evaluate``: a model on the items one names, kept as a run like the cycle's own, and compared pairwise.

What was computed before is remembered: the cycle's own evaluation costs nothing again. Of several metrics each
comparison's interval is widened so that all of them hold together (Bonferroni).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from treadle.core.artifacts import Artifact
from treadle.core.driver import Driver, Listener
from treadle.core.errors import Refused, UserError, nearest
from treadle.core.plugins import load
from treadle.evals.evaluation_task import DEFAULT_METRICS as TASK_METRICS
from treadle.evals.evaluation_task import NEEDS, LoadedTask, load_evaluation_task
from treadle.evals.intervals import LEVEL, Comparison, Interval
from treadle.evals.metric import Metric, load_metric
from treadle.evals.report import EvaluationReport
from treadle.evals.results import Evaluation
from treadle.evals.task import BASE, Task, load_task, task_version
from treadle.evaluating_judge import Judge, find_judge, judged
from treadle.evaluating_tasks import Subject, seen_in_training, task_items, task_report, told
from treadle.lm.base_model import KNOWN, fingerprint
from treadle.lm.model import Model
from treadle.project import Project
from treadle.record.record import Record
from treadle.record.reference import resolve
from treadle.stages.develop.evaluating import evaluate, evaluate_base, score
from treadle.stages.develop.items import make_items
from treadle.stages.prepare.chain import parse_steps
from treadle.stages.prepare.division import choose_tests
from treadle.stages.prepare.quality import gather_examples
from treadle.text.accounting import Accounting, read_accounting
from treadle.text.corpus import Corpus
from treadle.text.dataset import Dataset
from treadle.text.examples import RAREST, load_maker

A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True, slots=True)
class Asked:
    """What to evaluate on and by: ``data`` is a file of items, ``subject`` its column that says whom one is about,
    ``dataset`` a version whose test split they are; the project's latest where both are None. ``task`` says
    all of it. ``judge``: a file that says who compares the answers with those of another model."""

    data: Path | None = None
    subject: str | None = None
    dataset: str | None = None
    metrics: tuple[str, ...] = ()
    by: str | None = None
    task: str | None = None
    judge: Path | None = None


@dataclass(frozen=True)
class Evaluated:
    """Scores with intervals. ``rows``: what became of the rows that one named. ``seen`` items are, or nearly are, in
    what it was fine-tuned on; None: not known; ``unseen``: the scores on the others, where there are some of both.
    ``task``: name, version and digest."""

    subject: Subject
    items: Dataset
    report: EvaluationReport
    seen: int | None
    against: tuple[Subject, EvaluationReport, dict[str, Comparison]] | None = None
    slices: dict[str, dict[str, Interval]] = field(default_factory=dict)
    unseen: dict[str, Interval] = field(default_factory=dict)
    task: dict[str, Any] | None = None
    judged: dict[str, Any] | None = None
    rows: Accounting | None = None

    def public(self) -> dict[str, Any]:
        """As JSON."""
        against = None
        if self.against is not None:
            other, report, found = self.against
            metrics = {name: comparison.to_json() for name, comparison in found.items()}
            against = {"ref": other.ref, "digest": other.digest, "evaluation": report.digest, "metrics": metrics}
        return {
            "ref": self.subject.ref,
            "digest": self.subject.digest,
            "dataset": self.items.digest,
            "items": self.items.counts()["test"],
            "seen_in_training": self.seen,
            "evaluation": self.report.digest,
            "metrics": self.report.scores(),
            "against": against,
            "slices": {
                value: {name: interval.to_json() for name, interval in scores.items()}
                for value, scores in self.slices.items()
            },
            **({"unseen": {name: each.to_json() for name, each in self.unseen.items()}} if self.unseen else {}),
            **({"task": self.task} if self.task else {}),
            **({"judged": self.judged} if self.judged else {}),
            **({"rows": _rows_of(self.rows)} if self.rows is not None else {}),
        }


def evaluate_ref(
    project: Project, ref: str, asked: Asked, against: str | None = None, listener: Listener | None = None
) -> Evaluated:
    """The evaluation; ``UserError`` for a reference that is no model and for items that cannot be had."""
    record, file = project.record, project.file
    driver = Driver(record.runs, project.folder, seed=file.seed, listener=listener)
    driver.stage("develop")
    subject, other = _subject(record, ref), _subject(record, against) if against else None
    task = load_evaluation_task(asked.task, project.folder) if asked.task else None
    usual = load_task(file.task, project.folder)
    if task is not None:
        names = list(dict.fromkeys(asked.metrics)) or task.task.metrics or TASK_METRICS[task.task.kind]
    else:
        names = list(dict.fromkeys(asked.metrics)) or file.develop.evaluate.metrics or list(usual.metrics)
    metrics = [load_metric(name, project.folder) for name in names]
    _fitting(task, usual, metrics)
    if len({metric.name for metric in metrics}) < len(metrics):
        raise UserError(f"evaluate: two of the metrics {', '.join(names)} have one name; give one of them another")
    judge = _judge(project, asked, metrics, against)
    items = _items(project, driver, asked) if task is None else task_items(project, driver, task)
    seen = seen_in_training(record, subject, items)
    if task is not None and task.task.seen == "refuse" and seen:
        raise Refused(
            f"evaluate {ref}: {len(seen):,} of {items.counts()['test']:,} items of {task.task.name} are, or nearly"
            " are, in what it was fine-tuned on; keep them apart with prepare.decontaminate, or say `seen: mark`"
        )

    def report_on(one: Subject) -> EvaluationReport:
        if task is not None:
            return task_report(project, driver, task.task, one, items, names)
        named = asked.data is not None or asked.dataset is not None
        return _report(project, driver, one, items, names, named=named)

    report = report_on(subject)
    compared, verdict = None, None
    if other is not None:
        theirs = report_on(other)
        compared = other, theirs, _compared(report, theirs, metrics, file.seed)
        verdict = judged(project, driver, judge, report, theirs) if judge is not None else None
    return Evaluated(
        subject,
        items,
        report,
        None if seen is None else len(seen),
        compared,
        _slices(report, asked.by, metrics, file.seed) if asked.by else {},
        _unseen(report, seen or frozenset(), metrics, file.seed),
        told(task) if task is not None else None,
        verdict,
        _account(items) if asked.data is not None or task is not None else None,
    )


def _account(items: Dataset) -> Accounting | None:
    """Of the rows that items were made of; None where they are those of a dataset."""
    found = read_accounting(items.path())
    return found if found.read else None


def _rows_of(rows: Accounting) -> dict[str, Any]:
    kept = {"in": rows.read, "kept": rows.kept, "dropped": dict(sorted(rows.dropped.items()))}
    return {**kept, "quarantined": len(rows.quarantined)}


def _judge(project: Project, asked: Asked, metrics: Sequence[Metric], against: str | None) -> Judge | None:
    if asked.judge is None:
        return None
    if against is None or not any(metric.needs == "answer" for metric in metrics):
        raise UserError(
            "evaluate --judge compares answers: expected --against, and a metric of answers such as rouge_l"
        )
    return find_judge(project, asked.judge)


def _fitting(task: LoadedTask | None, usual: Task, metrics: Sequence[Metric]) -> None:
    if task is None:
        usual.require(metrics)
        return
    for metric in metrics:
        if metric.needs not in NEEDS[task.task.kind]:
            raise UserError(f"metric {metric.name} asks for {metric.needs}; {task.task.name} is {task.task.kind}")


def _unseen(
    report: EvaluationReport, seen: frozenset[int], metrics: Sequence[Metric], seed: int
) -> dict[str, Interval]:
    """The scores without items that training had; none where that is all or nothing."""
    evaluation = report.items()
    left = [place for place in range(len(evaluation.items)) if place not in seen]
    if not seen or len(left) < 2:
        return {}
    items = tuple(evaluation.items[place] for place in left)
    outputs = tuple(evaluation.outputs[place] for place in left)
    return Evaluation(evaluation.name, items, outputs).scores(metrics, seed=seed)


def _subject(record: Record, ref: str) -> Subject:
    there = Path(ref).expanduser().exists()
    if not there and (ref.startswith(("b3:", "run-", "int-", "doc:")) or record.versions.resolve(ref) is not None):
        found = resolve(record, ref, lambda _: [])
        if found.of != Model.kind:
            what = found.of or found.kind
            raise UserError(f"evaluate {ref}: that is a {what}; expected a model: model@v1, @champion")
        return Subject(ref, _present(record, Model(found.id, record.store), ref))
    try:
        return Subject(ref, None, ref, fingerprint(ref))
    except UserError as error:
        if there or ref in {known.name for known in KNOWN}:
            raise
        raise UserError(f"evaluate {ref}: no model@v1, @champion or b3:..., and no base model ({error})") from None


def _present(record: Record, artifact: A, ref: str) -> A:
    if not record.store.has(artifact.digest):
        raise UserError(f"evaluate: {ref} is no longer in the store; treadle pull REMOTE fetches what a remote has")
    return artifact


def _items(project: Project, driver: Driver, asked: Asked) -> Dataset:
    record = project.record
    if asked.data is not None:
        corpus = _rows(project, driver, asked.data, asked.subject)
        _, maker, settings = parse_steps(project.file.prepare, load_task(project.file.task, project.folder))
        made, code = load_maker(maker, project.folder)
        if RAREST in signature(made).parameters:  # what cannot be learned can be judged all the same
            settings = {**settings, RAREST: 1}
        return driver.run(make_items, corpus, maker=maker, maker_version=code, maker_settings=settings)
    version = record.versions.resolve(asked.dataset) if asked.dataset else record.versions.latest(Dataset.kind)
    if version is None or version.kind != Dataset.kind:
        said = f"{asked.dataset} is no version of a dataset" if asked.dataset else "there is no dataset yet"
        raise UserError(f"evaluate: {said}; treadle run makes dataset@v1, or give --data FILE")
    dataset = _present(record, Dataset(version.digest, record.store), version.short)
    if dataset.counts()["test"] < 2:
        raise UserError(f"evaluate: {version.short} has no test split of two items or more; give --data FILE")
    return driver.run(choose_tests, dataset)  # as the cycle does, so that what it evaluated is remembered


def _rows(project: Project, driver: Driver, data: Path, subject: str | None) -> Corpus:
    """The file's rows, by the usual names of columns or by those that the project's own sources have: whichever more
    rows have."""
    suppression, where = project.record.erasures.suppression(), "evaluate --data"
    source: dict[str, Any] = {"type": "files", "path": os.path.relpath(data, project.folder)}
    read = []
    for fields in _columns(project):
        named = {**fields, "subject": subject} if subject is not None else fields
        read.append(gather_examples(driver, {**source, "fields": named} if named else source, suppression, where))
    return max(read, key=lambda corpus: corpus.accounting().kept)


def _columns(project: Project) -> list[dict[str, Any]]:
    """The ``fields`` of each source that has some, and none: the usual names."""
    given: list[Any] = [(each.model_extra or {}).get("fields") for each in project.file.collect.sources]
    found: list[dict[str, Any]] = []
    for fields in [*given, {}]:
        if isinstance(fields, dict) and fields not in found:
            found.append(fields)
    return found


def _report(
    project: Project, driver: Driver, subject: Subject, items: Dataset, names: list[str], *, named: bool
) -> EvaluationReport:
    file = project.file
    how = {
        "metrics": names,
        "versions": [load("treadle.metrics", name, driver.folder).version for name in names],
        "engine": file.deploy.local_engine,
        "system_prompt": file.deploy.system_prompt,
        "max_tokens": file.develop.evaluate.max_tokens,
    }
    chosen = {"task": file.task, "task_version": task_version(file.task, driver.folder)}
    if subject.model is not None:
        return driver.run(score if named else evaluate, subject.model, items, **chosen, **how)
    if BASE not in load_task(file.task, driver.folder).baselines:
        raise UserError(
            f"evaluate {subject.ref}: a base model cannot do task {file.task}; expected a model that was trained here"
        )
    named_base = {"base_model": subject.base, "fingerprint": subject.fingerprint}
    return driver.run(evaluate_base, items, None, **chosen, **named_base, shots=0, **how)


def _compared(
    ours: EvaluationReport, theirs: EvaluationReport, metrics: Sequence[Metric], seed: int
) -> dict[str, Comparison]:
    level = 1 - (1 - LEVEL) / len(metrics)
    one, other = ours.items(), theirs.items()
    return {metric.name: one.against(other, metric, seed=seed, level=level) for metric in metrics}


def _slices(report: EvaluationReport, by: str, metrics: Sequence[Metric], seed: int) -> dict[str, dict[str, Interval]]:
    evaluation = report.items()
    known = sorted({name for item in evaluation.items for name in item.fields})
    if by not in known:
        raise UserError(f"evaluate --by {by}: no item has that field;{nearest(by, known)}")
    found: dict[str, dict[str, Interval]] = {}
    for metric in metrics:
        for value, interval in evaluation.slices(by, metric, seed=seed).items():
            found.setdefault(value, {})[metric.name] = interval
    return found
