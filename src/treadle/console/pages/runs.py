"""``/runs``: search, filter and sort every run; ``?format=json`` gives a `RunsPage`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from treadle.console.visit import Page, Query, Visit
from treadle.core.database import Database

PER_PAGE = 50
_SORTED_MOST = 2_000  # runs that are sorted by a metric: the latest that match
_ORDERS = {
    "latest": "seq DESC",
    "oldest": "seq ASC",
    "longest": "coalesce(seconds, -1) DESC, seq DESC",
    "shortest": "coalesce(seconds, 1e12) ASC, seq DESC",
}
STATUSES = ("", "running", "done", "failed", "crashed")
SORTS = (*_ORDERS, "metric")
_COLUMNS = "id, step, status, started, seconds, metrics, outputs"


@dataclass(frozen=True, slots=True)
class RunRow:
    """One line of the list. ``outputs`` maps names to digests."""

    id: str
    step: str
    status: str
    started: str
    seconds: float | None
    metrics: dict[str, float]
    outputs: dict[str, str]


@dataclass(frozen=True, slots=True)
class RunsFilter:
    """What was asked for. ``q`` is searched for in parameters, ids and step names."""

    q: str = ""
    step: str = ""
    status: str = ""
    sort: str = "latest"
    metric: str = ""

    def query(self) -> dict[str, str]:
        """For a link to another page of the same list."""
        return {"q": self.q, "step": self.step, "status": self.status, "sort": self.sort, "metric": self.metric}


@dataclass(frozen=True, slots=True)
class RunsPage:
    """``total`` counts what matches; ``start`` is the place of the first run shown, ``next`` that of the next page."""

    filter: RunsFilter
    runs: tuple[RunRow, ...]
    total: int
    start: int
    previous: int | None
    next: int | None
    steps: tuple[str, ...]


def runs(visit: Visit) -> Page:
    """The list."""
    database = visit.record.workspace.database
    wanted = _filter(visit.query)
    start = visit.query.number("start", 0, 0, 10_000_000)
    where, values = _where(wanted)
    total = int(database.query(f"SELECT count(*) FROM runs{where}", values)[0][0])
    if wanted.sort == "metric" and wanted.metric:
        found = _by_metric(database, where, values, wanted.metric)[start : start + PER_PAGE]
        total = min(total, _SORTED_MOST)
    else:
        order = _ORDERS.get(wanted.sort, _ORDERS["latest"])
        sql = f"SELECT {_COLUMNS} FROM runs{where} ORDER BY {order} LIMIT {PER_PAGE} OFFSET ?"
        found = [_run(row) for row in database.query(sql, (*values, start))]
    steps = tuple(str(row[0]) for row in database.query("SELECT DISTINCT step FROM runs ORDER BY step LIMIT 200"))
    following = start + PER_PAGE if start + PER_PAGE < total else None
    before = max(0, start - PER_PAGE) if start else None
    view = RunsPage(wanted, tuple(found), total, start, before, following, steps)
    return Page("runs.html", "Runs", "runs", view)


def _filter(query: Query) -> RunsFilter:
    return RunsFilter(
        query.text("q", most=200),
        query.text("step", most=200),
        query.choice("status", STATUSES, ""),
        query.choice("sort", SORTS, "latest"),
        query.text("metric", most=100),
    )


def _where(wanted: RunsFilter) -> tuple[str, list[str]]:
    parts, values = [], []
    if wanted.step.endswith("."):  # a whole stage
        parts.append("step >= ? AND step < ?")
        values += [wanted.step, wanted.step[:-1] + "/"]
    elif wanted.step:
        parts.append("step = ?")
        values.append(wanted.step)
    if wanted.status:
        parts.append("status = ?")
        values.append(wanted.status)
    if wanted.q:
        like = "lower({}) LIKE lower(?) ESCAPE '!'"
        parts.append("(" + " OR ".join(like.format(column) for column in ("parameters", "id", "step")) + ")")
        values += [f"%{_escaped(wanted.q)}%"] * 3
    return (" WHERE " + " AND ".join(parts) if parts else ""), values


def _escaped(text: str) -> str:
    return text.replace("!", "!!").replace("%", "!%").replace("_", "!_")


def _by_metric(database: Database, where: str, values: list[str], metric: str) -> list[RunRow]:
    """The highest first; runs without the metric come last."""
    sql = f"SELECT {_COLUMNS} FROM runs{where} ORDER BY seq DESC LIMIT {_SORTED_MOST}"
    found = [_run(row) for row in database.query(sql, values)]
    return sorted(found, key=lambda run: -run.metrics.get(metric, float("-inf")))


def _run(row: tuple[Any, ...]) -> RunRow:
    identifier, step, status, started, seconds, metrics, outputs = row
    return RunRow(identifier, step, status, started, seconds, json.loads(metrics), json.loads(outputs))
