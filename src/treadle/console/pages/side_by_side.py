"""``/compare/runs``: several runs side by side; ``?format=json`` gives a `SideBySidePage`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from treadle.console.charts import Curves, Whisker, curves, whisker
from treadle.console.pages.run import Points, points_of
from treadle.console.problem import Problem
from treadle.console.visit import Page, Visit
from treadle.core.runs import SYSTEM, RunRecord
from treadle.evals.report import EvaluationReport
from treadle.lm.model import Model
from treadle.record.record import Record
from treadle.record.run_view import described

MOST = 6  # runs; as many lines can be told apart


@dataclass(frozen=True, slots=True)
class Column:
    """One of the runs."""

    id: str
    step: str
    status: str
    started: str
    seconds: float | None
    tags: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Interval:
    """What an evaluation of the run's model found: the value, its 95 % interval, and over how many items."""

    value: float
    low: float
    high: float
    n: int
    drawn: Whisker | None


@dataclass(frozen=True, slots=True)
class Several:
    """One metric of the runs that logged it, over each other."""

    metric: str
    points: dict[str, Points]
    drawn: Curves | None


@dataclass(frozen=True, slots=True)
class SideBySidePage:
    """``settings`` that differ, ``metrics`` and ``scores`` have a value for each of ``runs``, in their order; None
    where a run has none."""

    runs: tuple[Column, ...]
    settings: dict[str, list[Any]]
    metrics: dict[str, list[float | None]]
    scores: dict[str, list[Interval | None]]
    curves: tuple[Several, ...]


def side_by_side(visit: Visit) -> Page:
    """The runs that were ticked."""
    record = visit.record
    named = list(dict.fromkeys(part.strip() for part in visit.query.text("run").split(",") if part.strip()))
    if not 2 <= len(named) <= MOST:
        said = f"{len(named)} {'run was' if len(named) == 1 else 'runs were'} named; two to {MOST} can be compared."
        raise Problem(400, "Tick some runs", said, "Tick them in the list.", "/runs")
    runs = [_found(record, name) for name in named]
    told = [described(record, run) for run in runs]
    columns = tuple(
        Column(run.id, run.step, run.status, run.started, run.seconds, each["tags"])
        for run, each in zip(runs, told, strict=True)
    )
    settings = _rows([each["parameters"] for each in told])
    view = SideBySidePage(
        columns,
        {name: values for name, values in settings.items() if any(value != values[0] for value in values)},
        _rows([run.metrics for run in runs]),
        _rows(_scores(record, runs)),
        tuple(_curves(record, runs)),
    )
    return Page("side_by_side.html", f"{len(runs)} runs", "runs", view)


def _found(record: Record, name: str) -> RunRecord:
    run = record.runs.get(name)
    if run is None:
        raise Problem(404, "No such run", f"There is no run {name[:60]}.", "Look for it in the list.", "/runs")
    return run


def _rows(held: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Names in the order they are met, each with the value of every run."""
    names = dict.fromkeys(name for each in held for name in each)
    return {name: [each.get(name) for each in held] for name in names}


def _scores(record: Record, runs: list[RunRecord]) -> list[dict[str, Interval]]:
    """Of each: an evaluation's own; those of the latest evaluation of the model that a run made."""
    made = [digest for run in runs for digest in run.outputs.values()]
    database, marks = record.workspace.database, ", ".join("?" * len(made))
    kinds = dict(database.query(f"SELECT digest, kind FROM artifacts WHERE digest IN ({marks})", made)) if made else {}
    models = [digest for digest, kind in kinds.items() if kind == Model.kind]
    reports = {digest: [digest] for digest, kind in kinds.items() if kind == EvaluationReport.kind}
    if models:
        takes = " OR ".join(["inputs LIKE ?"] * len(models))
        sql = f"SELECT * FROM runs WHERE step LIKE '%evaluat%' AND status = 'done' AND ({takes}) ORDER BY seq DESC"
        for taker in RunRecord.many(database.query(sql, [f"%{digest}%" for digest in models])):
            reports.setdefault(taker.inputs.get("model", ""), []).extend(taker.outputs.values())
    return [
        _latest(record, [each for digest in run.outputs.values() for each in reports.get(digest, ())]) for run in runs
    ]


def _latest(record: Record, reports: list[str]) -> dict[str, Interval]:
    """The scores of the first that is here."""
    for digest in reports:
        report = EvaluationReport(digest, record.store)
        if record.store.has(digest) and report.has("scores.json"):
            return {name: _interval(score) for name, score in report.scores().items()}
    return {}


def _interval(score: dict[str, Any]) -> Interval:
    value, low, high = (float(score[name]) for name in ("value", "low", "high"))
    return Interval(value, low, high, int(score.get("n", 0)), whisker(value, low, high, width=120))


def _curves(record: Record, runs: list[RunRecord]) -> Iterable[Several]:
    logged = {run.id: points_of(record, run.id) for run in runs}
    for metric in dict.fromkeys(name for points in logged.values() for name in points):
        if not metric.startswith(SYSTEM):
            held = {identifier: points[metric] for identifier, points in logged.items() if metric in points}
            yield Several(metric, held, curves(held))
