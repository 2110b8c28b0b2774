"""Every value of a metric, by time."""

from __future__ import annotations

from typing import Any

from treadle.integrations.mlflow_tracking.fields import Fields, page
from treadle.integrations.mlflow_tracking.points import Point
from treadle.integrations.mlflow_tracking.problem import invalid
from treadle.integrations.mlflow_tracking.run_view import RunView
from treadle.integrations.mlflow_tracking.tracker import Tracker

_PAGE = 25_000


def of_one(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Every value of one metric of one run, by time."""
    run, key = tracker.run(fields.needed("run_id", "run_uuid", most=256)), fields.needed("metric_key", most=250)
    size = fields.whole("max_results", 0, least=0, most=_PAGE)
    found = [point.public() for point in _series(tracker, run, key)]
    chosen, more = page(found, fields, size or len(found) or 1)
    return {"metrics": chosen, **more}


def of_many(tracker: Tracker, fields: Fields) -> dict[str, Any]:
    """Every value of one metric of several runs; between two steps where they are named."""
    key = fields.needed("metric_key", most=250)
    runs = [tracker.run(each) for each in fields.texts("run_id", most=100) or fields.texts("run_ids", most=100)]
    if not runs:
        raise invalid("Missing value for required parameter 'run_id'.")
    first, last = fields.whole("start_step", -(1 << 62)), fields.whole("end_step", 1 << 62)
    size = fields.whole("max_results", _PAGE, least=1, most=_PAGE)
    found = []
    for run in runs:
        series = [point for point in _series(tracker, run, key) if first <= point.step <= last]
        found += [point.public(run_id=run.id) for point in _thinned(series, max(1, size // len(runs)))]
    return {"metrics": found}


def _series(tracker: Tracker, run: RunView, key: str) -> list[Point]:
    """By time. What was sent again, or again for a model (clients do so when they log one), is there once."""
    points = {
        (point.timestamp, point.step, str(point.value)): point
        for point in reversed(tracker.points.of(run.run.id))
        if point.key == key
    }
    return sorted(points.values(), key=lambda point: (point.timestamp, point.step, point.rank))


def _thinned(series: list[Point], most: int) -> list[Point]:
    """At most so many of them, evenly, with the first and the last."""
    if len(series) <= most:
        return series
    if most == 1:
        return series[-1:]
    return [series[number * (len(series) - 1) // (most - 1)] for number in range(most)]
