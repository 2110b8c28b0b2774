"""Metrics over time: rows of the journal, with the client's own times, and the latest value of each."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from treadle.core.journal import Journal
from treadle.core.run import METRICS
from treadle.core.segment import line
from treadle.core.texts import is_word
from treadle.integrations.mlflow_tracking.fields import Fields, finite, name_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEPT = 5_000  # runs whose latest values stay in memory


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one metric. ``timestamp`` in milliseconds since 1970, ``dataset`` name and digest."""

    key: str
    value: float
    timestamp: int
    step: int
    model: str = ""
    dataset: tuple[str, str] = ("", "")

    @property
    def rank(self) -> tuple[int, int, float]:
        """The greatest is the latest."""
        return self.step, self.timestamp, 0.0 if math.isnan(self.value) else self.value

    def public(self, **more: Any) -> dict[str, Any]:
        """As MLflow's JSON has it."""
        told = {"key": self.key, "value": finite(self.value), "timestamp": self.timestamp, "step": self.step}
        about = {"model_id": self.model, "dataset_name": self.dataset[0], "dataset_digest": self.dataset[1]}
        return told | {name: value for name, value in about.items() if value} | more


def point_of(fields: Fields, present: int) -> Point:
    """From a request."""
    name = fields.text("dataset_name", most=500)
    return Point(
        name_of(fields),
        fields.number("value"),
        fields.moment("timestamp", present),
        fields.whole("step"),
        fields.text("model_id", most=100),
        (name, fields.text("dataset_digest", most=36)) if is_word(name) else ("", ""),
    )


class Points:
    """Writes and reads them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._latest: OrderedDict[str, dict[str, Point]] = OrderedDict()
        self._written: dict[str, int] = {}  # how often a run was written to while somebody read it
        self._lock = threading.Lock()

    def write(self, run: str, points: Iterable[Point]) -> None:
        """Append them in one write; once this returns they survive the death of this process."""
        rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        taken = list(points)
        for number, point in enumerate(taken):
            place: tuple[Any, ...] = (point.timestamp, point.step, point.model, point.dataset)
            if point.key in rows.get(place, {"values": ()})["values"]:
                place = (*place, number)
            row = rows.setdefault(place, {"id": run, "step": point.step, "time": _iso(point.timestamp), "values": {}})
            row["values"][point.key] = point.value if math.isfinite(point.value) else str(point.value)
            row |= {"model": point.model} if point.model else {}
            row |= {"dataset": list(point.dataset)} if point.dataset[0] else {}
        self._journal.append_lines(METRICS, b"".join(map(line, rows.values())), len(rows))
        with self._lock:
            if run in self._written:
                self._written[run] += 1
            if run in self._latest:
                _advance(self._latest[run], taken)

    def of(self, run: str) -> list[Point]:
        """All of a run, in the order they were logged."""
        return [point for row in self._journal.find_all(METRICS, run) for point in _points(row)]

    def latest(self, run: str) -> dict[str, Point]:
        """The last of each metric: the highest step, then the latest time, then the highest value."""
        with self._lock:
            if run in self._latest:
                self._latest.move_to_end(run)
                return dict(self._latest[run])
            before = self._written.setdefault(run, 0)
        found: dict[str, Point] = {}
        _advance(found, self.of(run))
        with self._lock:
            if self._written.get(run) == before:
                self._latest[run] = dict(found)
                if len(self._latest) > _KEPT:
                    self._latest.popitem(last=False)
            self._written.pop(run, None)
        return found


def _advance(latest: dict[str, Point], points: Iterable[Point]) -> None:
    for point in points:
        if point.key not in latest or point.rank >= latest[point.key].rank:
            latest[point.key] = point


def _points(row: dict[str, Any]) -> list[Point]:
    name, digest = row.get("dataset") or ("", "")
    moment = (datetime.fromisoformat(row["time"]) - _EPOCH) // timedelta(milliseconds=1)
    about = (moment, int(row["step"] or 0), str(row.get("model") or ""), (str(name), str(digest)))
    return [Point(key, float(value), *about) for key, value in row["values"].items()]


def _iso(moment: int) -> str:
    return (_EPOCH + timedelta(milliseconds=moment)).isoformat(timespec="milliseconds")[:-6] + "Z"
