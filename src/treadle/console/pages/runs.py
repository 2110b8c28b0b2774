"""``/runs``: search, filter and sort every run; ``?format=json`` gives a `RunsPage`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from treadle.console.visit import Page, Query, Visit
from treadle.core.errors import UserError
from treadle.core.runs import RunRecord
from treadle.record.run_filter import parse, parse_field
from treadle.record.run_sql import Search, listed

PER_PAGE = 50
_SORTS = {"longest": ("seconds", True), "shortest": ("seconds", False)}
STATUSES = ("", "running", "done", "failed", "crashed")
SORTS = ("latest", "oldest", "longest", "shortest", "highest", "lowest", "metric")


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
    """What was asked for. ``q`` is searched for in parameters, ids and step names; ``where`` is a filter as ``treadle
    runs --where`` takes it; ``by`` is the field of the orders ``highest`` and ``lowest``. The order ``metric`` is
    ``highest`` by ``metrics.`` and ``metric``."""

    q: str = ""
    step: str = ""
    status: str = ""
    sort: str = "latest"
    metric: str = ""
    where: str = ""
    by: str = ""

    def query(self) -> dict[str, str]:
        """For a link to another page of the same list."""
        return {name: getattr(self, name) for name in ("q", "step", "status", "sort", "metric", "where", "by")}


@dataclass(frozen=True, slots=True)
class RunsPage:
    """``total`` counts what matches; ``start`` is the place of the first run shown, ``next`` that of the next page.
    ``error`` says what is wrong with the filter or the field; no run is shown then."""

    filter: RunsFilter
    runs: tuple[RunRow, ...]
    total: int
    start: int
    previous: int | None
    next: int | None
    steps: tuple[str, ...]
    error: str | None = None


def runs(visit: Visit) -> Page:
    """The list; one whose filter cannot be read says so in its place, with status 400."""
    record = visit.record
    wanted = _filter(visit.query)
    start = visit.query.number("start", 0, 0, 10_000_000)
    found: list[RunRecord] = []
    total, error = 0, None
    try:
        found, total = listed(record.runs, replace(_search(wanted), limit=PER_PAGE, offset=start))
    except UserError as problem:
        error = str(problem)
    sql = "SELECT DISTINCT step FROM runs ORDER BY step LIMIT 200"
    steps = tuple(str(row[0]) for row in record.workspace.database.query(sql))
    following = start + PER_PAGE if start + PER_PAGE < total else None
    before = max(0, start - PER_PAGE) if start else None
    view = RunsPage(wanted, tuple(map(_row, found)), total, start, before, following, steps, error)
    return Page("runs.html", "Runs", "runs", view, 200 if error is None else 400)


def _filter(query: Query) -> RunsFilter:
    wanted = RunsFilter(
        query.text("q", most=200),
        query.text("step", most=200),
        query.choice("status", STATUSES, ""),
        query.choice("sort", SORTS, "latest"),
        query.text("metric", most=100),
        query.text("where"),
        query.text("by", most=200),
    )
    if wanted.sort == "metric":
        by = f'metrics."{wanted.metric}"' if wanted.metric else ""
        return replace(wanted, sort="highest" if by else "latest", by=by)
    if wanted.sort in ("highest", "lowest") and not wanted.by:
        return replace(wanted, sort="latest")
    return wanted


def _search(wanted: RunsFilter) -> Search:
    """``UserError`` where the filter or the field cannot be read."""
    by, descending = _SORTS.get(wanted.sort, (wanted.by, wanted.sort == "highest"))
    sorted_ = wanted.sort in ("longest", "shortest", "highest", "lowest")
    return Search(
        parse(wanted.where) if wanted.where else None,
        wanted.step or None,
        wanted.status or None,
        parse_field(by, "by") if sorted_ else None,
        descending or wanted.sort == "oldest",
        text=wanted.q,
    )


def _row(run: RunRecord) -> RunRow:
    return RunRow(run.id, run.step, run.status, run.started, run.seconds, run.metrics, run.outputs)
