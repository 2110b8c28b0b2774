"""Items that flipped: where two versions, asked the same, were told apart by a metric, with both answers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from treadle.core.errors import Corrupt, UserError
from treadle.core.runs import RunRecord
from treadle.evals.report import EvaluationReport
from treadle.record.record import Record
from treadle.record.reference import resolve
from treadle.stages.track.names import DocumentNames

SHOWN = 20  # items on either side
_MOST_ITEMS = 5_000
_MOST_BYTES = 24 << 20


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
class Flips:
    """``better`` and ``worse`` are from ``a`` to ``b``, the largest change first; the counts are of all ``n`` items
    that both were asked, before the lists were cut."""

    metric: str
    metrics: tuple[str, ...]
    n: int
    count_better: int
    count_worse: int
    better: tuple[Flip, ...]
    worse: tuple[Flip, ...]


def flips(record: Record, a: str, b: str, metric: str = "") -> Flips | None:
    """Compare two versions item by item; None when there are no evaluations of both on the same items."""
    pair = _pair(record, _model(record, a), _model(record, b))
    if pair is None:
        return None
    first, second = pair
    scores = first.scores()
    metrics = tuple(name for name in scores if name in second.scores())
    if metric and metric not in metrics:
        raise UserError(f"metric: {metric[:40]!r} was not measured; expected one of {', '.join(metrics)}")
    if not metrics:
        return None
    chosen = metric or metrics[0]
    sign = 1.0 if scores[chosen].get("higher_is_better", True) else -1.0
    theirs = {row["item"]["id"]: row for row in _rows(first)}
    changed: list[tuple[float, Flip]] = []
    n = 0
    for row in _rows(second):
        other = theirs.get(row["item"]["id"])
        if other is None:
            continue
        n += 1
        before, after = (each["values"].get(chosen) for each in (other, row))
        if before is None or after is None or not math.isfinite(after - before) or before == after:
            continue
        changed.append(((after - before) * sign, _flip(other, row, before, after)))
    changed.sort(key=lambda each: (each[0], each[1].item))
    worse = [flip for change, flip in changed if change < 0]
    better = [flip for change, flip in reversed(changed) if change > 0]
    counts = (len(better), len(worse))
    return Flips(chosen, metrics, n, *counts, tuple(better[:SHOWN]), tuple(worse[:SHOWN]))


def _model(record: Record, ref: str) -> str:
    return resolve(record, ref, DocumentNames(record).locate).id


def _pair(record: Record, a: str, b: str) -> tuple[EvaluationReport, EvaluationReport] | None:
    """The latest evaluations of both with the same settings on the same data."""
    mine = [run for run in _evaluations(record, a) if _report(record, run)]
    for run in _evaluations(record, b):
        report = _report(record, run)
        same = next((other for other in mine if report and _asked(other, a) == _asked(run, b)), None)
        found = _report(record, same) if same else None
        if report is not None and found is not None:
            return found, report
    return None


def _evaluations(record: Record, model: str) -> list[RunRecord]:
    return [
        run
        for run in record.runs.taking(model)
        if run.status == "done" and "evaluat" in run.step and run.inputs.get("model") == model
    ]


def _asked(run: RunRecord, model: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """What tells evaluations apart besides the model."""
    return run.step, run.parameters, {name: value for name, value in run.inputs.items() if value != model}


def _report(record: Record, run: RunRecord) -> EvaluationReport | None:
    for digest in run.outputs.values():
        report = EvaluationReport(digest, record.store)
        if record.store.has(digest) and report.has("items.jsonl"):
            return report
    return None


def _rows(report: EvaluationReport) -> list[dict[str, Any]]:
    size = next(entry.size for entry in report.entries() if entry.path == "items.jsonl")
    if size > _MOST_BYTES:
        raise UserError(f"the evaluations are too large to compare here ({size / 1e6:.0f} MB); use treadle diff")
    with report.open("items.jsonl") as file:
        try:
            return [json.loads(line) for line, _ in zip(file, range(_MOST_ITEMS), strict=False)]
        except ValueError:
            raise Corrupt(f"{report!r} holds no evaluation; run treadle verify") from None


def _flip(first: dict[str, Any], second: dict[str, Any], before: float, after: float) -> Flip:
    item = second["item"]
    asked = [message["content"] for message in item["messages"] if message["role"] == "user"]
    question = "\n".join(asked) or item["text"]
    answers = (first["output"]["text"], second["output"]["text"])
    return Flip(item["id"], question, item["reference"], *answers, before, after)
