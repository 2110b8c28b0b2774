"""Items that flipped: where two versions, asked the same, were told apart by a metric, with both answers."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt, UserError
from treadle.core.runs import RunRecord
from treadle.evals.report import EvaluationReport
from treadle.record.record import Record

SHOWN = 20  # items on either side
_MOST_ITEMS = 1_000_000
_MAX_LINE = 16 << 20  # bytes of one item
_ITEMS = "items.jsonl"
_ASKED = " asked"  # beside the names of metrics


@dataclass(frozen=True, slots=True)
class Flip:
    """One item: what was asked, what was wanted, what both said, and the metric of both."""

    item: str
    question: str
    reference: str
    a: str
    b: str
    value_a: float
    value_b: float


@dataclass(frozen=True, slots=True)
class Paired:
    """The mean of ``b`` minus ``a`` over the same items, with its 95 % interval; ``decided`` when that leaves out 0 and
    there are enough items to say so."""

    difference: float
    low: float
    high: float
    decided: bool


@dataclass(frozen=True, slots=True)
class Flips:
    """``better`` and ``worse`` are from ``a`` to ``b``, the largest change first; the counts are of all ``n`` items
    that both were asked, before the lists were cut. With ``right_or_wrong`` every item is either (1 or 0), so better is
    wrong before and right now. ``paired`` is None where the metric is no mean over the items."""

    metric: str
    metrics: tuple[str, ...]
    n: int
    count_better: int
    count_worse: int
    better: tuple[Flip, ...]
    worse: tuple[Flip, ...]
    right_or_wrong: bool = False
    paired: Paired | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What one side of a comparison is: a model, or an evaluation itself."""

    model: str | None
    report: EvaluationReport | None


def flips(
    record: Record, a: Asked, b: Asked, metric: str = "", *, shown: int = SHOWN, most_bytes: int | None = None
) -> Flips | None:
    """Compare item by item; None when there are no evaluations of both on the same items.

    Without a ``metric`` it is the first by which an item is right or wrong, or else the first. ``UserError`` for one
    that was not measured, and for evaluations of more than ``most_bytes``.
    """
    pair = _pair(record, a, b)
    if pair is None:
        return None
    scores = [each.scores() for each in pair]
    metrics = tuple(name for name in scores[0] if name in scores[1])
    if metric and metric not in metrics:
        raise UserError(f"metric: {metric[:40]!r} was not measured; expected one of {', '.join(metrics) or 'none'}")
    if not metrics:
        return None
    size = max(entry.size for each in pair for entry in each.entries() if entry.path == _ITEMS)
    if most_bytes is not None and size > most_bytes:
        raise UserError(f"the evaluations are too large to compare here ({size / 1e6:.0f} MB); use treadle diff")
    values = [_values(each) for each in pair]
    first, second = values
    shared = [item for item in second if item in first and first[item][_ASKED] == second[item][_ASKED]]
    if not shared:
        return None
    chosen = metric or next((name for name in metrics if _right_or_wrong(values, shared, name)), metrics[0])
    sign = 1.0 if scores[0][chosen].get("higher_is_better", True) else -1.0
    changes: dict[str, float] = {}
    for item in shared:
        before, after = (each[item].get(chosen) for each in values)
        if before is not None and after is not None and math.isfinite(after - before) and before != after:
            changes[item] = (after - before) * sign
    better = heapq.nlargest(shown, ((change, item) for item, change in changes.items() if change > 0))
    worse = heapq.nsmallest(shown, ((change, item) for item, change in changes.items() if change < 0))
    told = _told(pair, chosen, {item for _, item in (*better, *worse)})
    return Flips(
        chosen,
        metrics,
        len(shared),
        sum(change > 0 for change in changes.values()),
        sum(change < 0 for change in changes.values()),
        tuple(told[item] for _, item in better),
        tuple(told[item] for _, item in worse),
        _right_or_wrong(values, shared, chosen),
        _paired(scores, values, shared, chosen),
    )


def _right_or_wrong(values: list[dict[str, dict[str, Any]]], shared: list[str], metric: str) -> bool:
    return all(each[item].get(metric) in (0.0, 1.0) for each in values for item in shared)


def _paired(
    scores: list[dict[str, dict[str, Any]]], values: list[dict[str, dict[str, Any]]], shared: list[str], metric: str
) -> Paired | None:
    """The difference on the same items, where the score is the mean of the items' values."""
    columns = [[each[item].get(metric) for item in shared] for each in values]
    for score, theirs in zip(scores, values, strict=True):
        every = [each[metric] for each in theirs.values() if each.get(metric) is not None]
        if len(every) < len(theirs) or len(shared) < 2:
            return None
        if not math.isclose(math.fsum(every) / len(every), score[metric]["value"], rel_tol=1e-6, abs_tol=1e-9):
            return None
    try:
        import numpy as np

        from treadle.evals.intervals import compare
        from treadle.evals.metric import ratio
    except ModuleNotFoundError:  # the counts stand by themselves
        return None
    before, after = (np.stack([np.array(column), np.ones(len(column))], axis=1) for column in columns)
    higher = bool(scores[0][metric].get("higher_is_better", True))
    found = compare(after, before, ratio, higher_is_better=higher, seed=0)
    return Paired(found.difference, found.low, found.high, found.decided)


# -- evaluations


def _pair(record: Record, a: Asked, b: Asked) -> tuple[EvaluationReport, EvaluationReport] | None:
    """The evaluations themselves, or the latest of both models with the same settings; on the same data where there are
    such, otherwise on what their data share."""
    if a.report is not None and b.report is not None:
        return a.report, b.report
    if a.model is None or b.model is None:
        return None
    mine, theirs = (
        [(run, report) for run in evaluations(record, model) if (report := report_of(record, run)) is not None]
        for model in (a.model, b.model)
    )
    for data in (True, False):
        for run, report in theirs:
            for other, found in mine:
                if _set(other, a.model, data=data) == _set(run, b.model, data=data):
                    return found, report
    return None


def evaluations(record: Record, model: str) -> list[RunRecord]:
    """Runs that evaluated a model, the latest first."""
    return [
        run
        for run in record.runs.taking(model)
        if run.status == "done" and "evaluat" in run.step and run.inputs.get("model") == model
    ]


def report_of(record: Record, run: RunRecord) -> EvaluationReport | None:
    """The evaluation that a run made, where it is still there."""
    for digest in run.outputs.values():
        report = EvaluationReport(digest, record.store)
        if record.store.has(digest) and report.has(_ITEMS):
            return report
    return None


def _set(run: RunRecord, model: str, *, data: bool) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """What tells evaluations apart besides the model: settings, and the data where that is asked."""
    inputs = {name: value for name, value in run.inputs.items() if value != model} if data else {}
    return run.step, run.parameters, inputs


def _values(report: EvaluationReport) -> dict[str, dict[str, Any]]:
    """The metrics of each item by its id, with what was asked."""
    return {row["item"]["id"]: {**row["values"], _ASKED: _asked(row["item"])} for row in _rows(report)}


def _asked(item: dict[str, Any]) -> bytes:
    """Stands for the question and the answer that is wanted."""
    return blake3(canonical_json([item["messages"], item["text"], item["reference"]])).digest(16)


def _told(pair: tuple[EvaluationReport, EvaluationReport], metric: str, items: set[str]) -> dict[str, Flip]:
    """Some items with their texts."""
    if not items:
        return {}
    first, second = ({row["item"]["id"]: row for row in _rows(each) if row["item"]["id"] in items} for each in pair)
    return {item: _flip(first[item], second[item], metric) for item in items}


def _rows(report: EvaluationReport) -> Iterator[dict[str, Any]]:
    with report.open(_ITEMS) as file:
        try:
            for _ in range(_MOST_ITEMS):
                line = file.readline(_MAX_LINE)
                if not line:
                    return
                yield json.loads(line)
        except (ValueError, RecursionError):
            raise Corrupt(f"{report!r} holds no evaluation; run treadle verify") from None


def _flip(first: dict[str, Any], second: dict[str, Any], metric: str) -> Flip:
    item = second["item"]
    asked = [message["content"] for message in item["messages"] if message["role"] == "user"]
    question = "\n".join(asked) or item["text"]
    answers = (first["output"]["text"], second["output"]["text"])
    values = (first["values"][metric], second["values"][metric])
    return Flip(item["id"], question, item["reference"], *answers, *values)
