"""``/``: the loop as a picture, what is in force, what is due and why, and the timeline; ``?format=json`` gives a
`StatusPage`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from treadle.approving import waiting
from treadle.console.charts import Bars, bars
from treadle.console.loom import BANDS
from treadle.console.visit import Page, Visit
from treadle.cycle import STAGES
from treadle.project import Project
from treadle.record.alert import Alert
from treadle.record.deployment import Deployment
from treadle.record.interaction_index import InteractionFilter, InteractionIndex
from treadle.record.record import Record
from treadle.record.turn import TurnRecord
from treadle.record.version import Version
from treadle.stages.improve import Improved
from treadle.timeline import Event, in_words, timeline

_HOURS = 24
_SPAN = 1_800  # seconds in one bar of the traffic
EVENTS = 30
# The steps of develop that give a model, whichever a task takes.
_LEARN = ("develop.train", "develop.fit", "develop.pretrain", "develop.prefer", "develop.distill")


@dataclass(frozen=True, slots=True)
class Stage:
    """Where one stage stands. ``state`` is never, running, done, failed, due, waiting, trying or alert; ``gives`` is
    what it gave last, ``run`` its last run."""

    name: str
    state: str
    gives: str
    run: str | None = None
    step: str | None = None
    time: str | None = None


@dataclass(frozen=True, slots=True)
class InForce:
    """A version that an alias names, and since when."""

    alias: str
    ref: str
    digest: str
    since: str


@dataclass(frozen=True, slots=True)
class Trial:
    """The canary: its share of the traffic, what it and the champion answered since it began, and the figures of the
    last decision about it."""

    id: str
    version: str
    release: str
    champion: str
    share: float
    begun: str
    answered: int
    champion_answered: int
    figures: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Due:
    """Why the next turn is due, in words, and what holds it back; ``counted`` is false while it is worked out."""

    counted: bool
    reasons: tuple[str, ...] = ()
    held_back: str = ""
    feedback: int = 0
    corrections: int = 0
    thumbs_up: int = 0
    thumbs_down: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """Traffic in one span of time; ``seconds`` is the 95th percentile of the time to the first token."""

    time: str
    requests: int
    failed: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Traffic:
    """The last day; drawn as bars of requests and of the time to the first token."""

    spans: tuple[Span, ...]
    requests: int
    failed: int
    drawn: Bars
    drawn_seconds: Bars


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is; ``unread`` interactions are not in the index yet."""

    documents: int
    runs: int
    interactions: int
    unread: int
    turns: int


@dataclass(frozen=True, slots=True)
class StatusPage:
    """Everything on the first page. ``turn`` goes on just now; ``turns`` are the latest, oldest first."""

    project: str
    task: str
    purpose: str | None
    stages: tuple[Stage, ...]
    turn: TurnRecord | None
    turns: tuple[TurnRecord, ...]
    in_force: tuple[InForce, ...]
    deployments: tuple[Deployment, ...]
    canary: Trial | None
    due: Due
    alerts: tuple[Alert, ...]
    waiting: tuple[str, ...]
    pending: tuple[str, ...]
    traffic: Traffic
    counts: Counts
    timeline: tuple[Event, ...]


def status(visit: Visit) -> Page:
    """The page."""
    project, record, index = visit.project, visit.record, visit.house.interactions()
    turns = record.turns.all()
    due = _due(visit.house.improved())
    waits = tuple(each.version.short for each in waiting(project))
    alerts = tuple(record.alerts.open())
    trial = _trial(record, index)
    in_force = _in_force(record)
    traffic = _traffic(index)
    counts = _counts(record, index, len(turns))
    view = StatusPage(
        project.file.name,
        project.file.task,
        project.file.govern.purpose,
        _stages(project, due, waits, trial, alerts, counts, traffic),
        turns[-1] if turns and turns[-1].ended is None else None,
        tuple(turns[-BANDS:]),
        in_force,
        tuple(record.deployments.all()),
        trial,
        due,
        alerts,
        waits,
        tuple(f"erasure {each.request}: {each.phase}" for each in record.erasures.open()),
        traffic,
        counts,
        tuple(timeline(record, EVENTS)),
    )
    return Page("status.html", "Status", "status", view)


def _in_force(record: Record) -> tuple[InForce, ...]:
    sql = "SELECT time FROM aliases WHERE kind = 'model' AND name = ? AND alias = ?"
    found = []
    for alias in ("champion", "challenger", "previous"):
        version = record.versions.alias("model", alias)
        if version is not None:
            since = record.workspace.database.query(sql, (version.name, alias))[0][0]
            found.append(InForce(alias, version.short, version.digest, since))
    return tuple(found)


def _trial(record: Record, index: InteractionIndex) -> Trial | None:
    canary = record.canaries.open()
    if canary is None:
        return None
    version = next((each.short for each in record.versions.with_digest(canary.model)), canary.model[:11])
    mine, theirs = (
        index.count(InteractionFilter(release=release, since=canary.begun, origin="traffic"))
        for release in (canary.release, canary.champion)
    )
    sides = (canary.release, canary.champion)
    return Trial(canary.id, version, *sides, canary.share, canary.begun, mine, theirs, flat(canary.figures))


def flat(figures: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Figures within figures by names with dots."""
    found: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            found |= flat(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


def _due(improved: Improved | None) -> Due:
    if improved is None:
        return Due(counted=False)
    return Due(
        True,
        tuple(in_words(reason) for reason in improved.due),
        improved.held_back,
        improved.feedback,
        improved.corrections,
        improved.thumbs_up,
        improved.thumbs_down,
    )


def _traffic(index: InteractionIndex) -> Traffic:
    begin = datetime.now(UTC) - timedelta(hours=_HOURS)
    figures = index.figures(begin.isoformat(), _SPAN)
    spans = tuple(Span(each.time, each.requests, each.failed, each.ttft_p95) for each in figures)
    return Traffic(
        spans,
        sum(each.requests for each in spans),
        sum(each.failed for each in spans),
        bars([float(each.requests) for each in spans]),
        bars([each.seconds or 0.0 for each in spans]),
    )


def _counts(record: Record, index: InteractionIndex, turns: int) -> Counts:
    database = record.workspace.database
    dataset = record.versions.latest("dataset")
    documents = 0
    if dataset is not None:
        sql = "SELECT documents FROM artifacts WHERE digest = ? LIMIT 1"
        documents = next((int(row[0]) for row in database.query(sql, (dataset.digest,))), 0)
    runs = int(database.query("SELECT count(*) FROM runs")[0][0])
    return Counts(documents, runs, index.count(InteractionFilter(origin="traffic")), index.waiting(), turns)


# -- the loop


def _stages(
    project: Project,
    due: Due,
    waits: tuple[str, ...],
    trial: Trial | None,
    alerts: tuple[Alert, ...],
    counts: Counts,
    traffic: Traffic,
) -> tuple[Stage, ...]:
    record = project.record
    gives: dict[str, Callable[[], str]] = {
        "collect": lambda: _collected(record),
        "prepare": lambda: _latest(record, "dataset"),
        "develop": lambda: trained(record),
        "track": lambda: _latest(record, "model"),
        "deploy": lambda: _deployed(record),
        "monitor": lambda: f"{_counted(traffic.requests, 'request')} today",
        "govern": lambda: _champion(record.versions.alias("model", "champion")),
        "improve": lambda: _counted(due.corrections, "correction") if due.counted else "counting",
    }
    over = {
        "monitor": "alert" if any(alert.kind in ("drift", "errors", "latency") for alert in alerts) else "",
        "govern": "waiting" if waits else "trying" if trial else "",
        "improve": "due" if due.reasons and not due.held_back else "",
    }
    found = []
    for name in STAGES:
        run = _last_run(record, name)
        idle = "done" if (counts.turns if name == "improve" else name == "monitor" and counts.interactions) else "never"
        state = over.get(name) or (run[2] if run else idle)
        state = "failed" if state == "crashed" else state
        found.append(Stage(name, state, gives[name](), *((run[0], run[1], run[3]) if run else ())))
    return tuple(found)


def _last_run(record: Record, stage: str) -> tuple[str, str, str, str] | None:
    within = "FROM runs WHERE step >= ? AND step < ?"  # twice, so that the index alone tells which is the last
    sql = f"SELECT id, step, status, started {within} AND seq = (SELECT max(seq) {within})"
    rows = record.workspace.database.query(sql, (stage + ".", stage + "/") * 2)
    return (rows[0][0], rows[0][1], rows[0][2], rows[0][3]) if rows else None


def _collected(record: Record) -> str:
    """Of the sources: a stage's other runs make corpora of corrections."""
    sql = "SELECT documents FROM artifacts WHERE kind = 'corpus' AND run IN (SELECT id FROM runs WHERE step = "
    sql += "'collect.gather' ORDER BY seq DESC LIMIT 20) ORDER BY seq DESC LIMIT 1"
    rows = record.workspace.database.query(sql)
    return _counted(rows[0][0], "document") if rows else "nothing yet"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _newest(record: Record, kind: str) -> tuple[int, str] | None:
    sql = "SELECT number, digest FROM versions WHERE kind = ? AND name = ? ORDER BY number DESC LIMIT 1"
    rows = record.workspace.database.query(sql, (kind, record.name))
    return (rows[0][0], rows[0][1]) if rows else None


def _latest(record: Record, kind: str) -> str:
    newest = _newest(record, kind)
    return f"{kind}@v{newest[0]}" if newest else "nothing yet"


def trained(record: Record) -> str:
    """What develop gave last."""
    found = [run for step in _LEARN for run in record.runs.find(step=step, status="done", limit=1)]
    run = max(found, key=lambda run: (run.started, run.id), default=None)
    loss = run.metrics.get("loss") if run else None
    return f"loss {loss:.2f}" if loss is not None else "a model" if run else "nothing yet"


def _deployed(record: Record) -> str:
    current = record.deployments.current()
    if current is not None:
        return current.endpoint.partition("//")[2] or current.endpoint
    sql = "SELECT digest FROM artifacts WHERE kind = 'release' ORDER BY seq DESC LIMIT 1"
    rows = record.workspace.database.query(sql)
    return f"release {rows[0][0][3:11]}" if rows else "nothing yet"


def _champion(version: Version | None) -> str:
    return f"champion v{version.number}" if version else "no champion yet"
