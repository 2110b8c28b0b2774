"""``/runs/RUN``: one run with everything that is recorded of it; ``?format=json`` gives a `RunPage`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from treadle.console.charts import Curves, curves
from treadle.console.problem import Problem
from treadle.console.visit import Page, Visit
from treadle.core.artifacts import Artifact
from treadle.core.experiment import LOG_FILE
from treadle.core.runs import RunRecord
from treadle.record.note import read_note
from treadle.record.record import Record
from treadle.record.run_view import described

_MOST_POINTS = 20_000
_MOST_TEXT = 100_000  # characters of a diff, bytes of a log
Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Thing:
    """An artifact that a run took or made: under which name, which it is, and what it is called; ``kind`` and ``bytes``
    where a run of this record made it."""

    name: str
    digest: str
    label: str
    there: bool
    kind: str | None
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric over the run's own steps: [step, value]; ``drawn`` is the same for SVG."""

    metric: str
    points: Points
    drawn: Curves | None


@dataclass(frozen=True, slots=True)
class RunPage:
    """``environment`` is what was installed, ``machine`` what it ran on; ``error`` the text a failed run left.

    ``parameters`` and ``tags`` have their texts in their places; what was erased stays the digest that stands for it.
    ``diff`` is what was not committed, at most a megabyte of its ``diff_bytes``; ``log`` the end of what was printed.
    """

    id: str
    step: str
    status: str
    started: str
    seconds: float | None
    parameters: dict[str, Any]
    metrics: dict[str, float]
    inputs: tuple[Thing, ...]
    outputs: tuple[Thing, ...]
    curves: tuple[Curve, ...]
    key: str
    seed: int | None
    commit: str | None
    actor: str | None
    python: str | None
    machine: dict[str, Any]
    environment: dict[str, str]
    error: str | None
    tags: dict[str, Any]
    notes: tuple[str, ...]
    branch: str | None
    command: str | None
    threads: dict[str, Any]
    memory_bytes: int | None
    diff: str
    diff_bytes: int
    log: str | None


def run(visit: Visit) -> Page:
    """One run."""
    record, identifier = visit.record, visit.path["run"]
    found = record.runs.get(identifier)
    if found is None:
        raise Problem(404, "No such run", f"There is no run {identifier[:60]}.", "Look for it in the list.", "/runs")
    told = described(record, found)
    environment = _environment(record, found.facts.get("environment"))
    view = RunPage(
        found.id,
        found.step,
        found.status,
        found.started,
        found.seconds,
        told["parameters"],
        found.metrics,
        _things(record, found.inputs),
        _things(record, found.outputs),
        tuple(Curve(name, points, curves({name: points})) for name, points in points_of(record, found.id).items()),
        found.key,
        told.get("seed"),
        told.get("commit"),
        told.get("actor"),
        environment.get("python"),
        told.get("machine") or {},
        environment.get("packages", {}),
        _error(record, found) if found.status == "failed" else None,
        told["tags"],
        tuple(told["notes"]),
        told["branch"],
        told["command"],
        told["threads"] or {},
        told["memory_bytes"],
        (told["diff"] or "")[:_MOST_TEXT],
        told["diff_bytes"] or 0,
        _log(record, found.outputs.get("log")),
    )
    return Page("run.html", f"{found.step} {found.id[-6:]}", "runs", view)


def points_of(record: Record, run_id: str) -> dict[str, Points]:
    """What a run logged over its steps, by metric."""
    found: dict[str, Points] = {}
    for place, row in enumerate(record.workspace.journal.find_all("metrics", run_id)[:_MOST_POINTS]):
        step = row.get("step")
        for name, value in row["values"].items():
            if isinstance(value, int | float):
                found.setdefault(name, []).append((float(place if step is None else step), float(value)))
    return found


def _things(record: Record, named: dict[str, Any]) -> tuple[Thing, ...]:
    digests = [
        (name, digest)
        for name, value in named.items()
        for digest in (value if isinstance(value, list) else [value])
        if isinstance(digest, str)
    ]
    found = []
    for name, digest in digests:
        versions = record.versions.with_digest(digest)
        label = versions[0].short if versions else digest[:11]
        sql = "SELECT kind, bytes FROM artifacts WHERE digest = ? ORDER BY seq LIMIT 1"
        rows = record.workspace.database.query(sql, (digest,))
        kind, size = rows[0] if rows else (None, None)
        found.append(Thing(name, digest, label, record.store.has(digest), kind, size))
    return tuple(found)


def _log(record: Record, digest: str | None) -> str | None:
    """The end of what a run printed; None where it kept nothing, or that was erased."""
    if digest is None or not record.store.has(digest):
        return None
    log = Artifact(digest, record.store)
    if not log.has(LOG_FILE):
        return None
    with log.open(LOG_FILE) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _MOST_TEXT))
        told = file.read(_MOST_TEXT).decode("utf-8", "replace")
    return told if size <= _MOST_TEXT else f"... {size - _MOST_TEXT:,} bytes before this\n{told}"


def _environment(record: Record, digest: str | None) -> dict[str, Any]:
    if not digest or not record.store.has_object(digest):
        return {}
    stored: dict[str, Any] = json.loads(record.store.read(digest))
    return stored


def _error(record: Record, found: RunRecord) -> str | None:
    # The row that ended a run follows the one that began it; in between are those of runs beside it.
    sql = (
        "SELECT body FROM ledger WHERE kind = 'run.finished' AND body LIKE ? AND seq > "
        "(SELECT seq FROM runs WHERE id = ?) ORDER BY seq LIMIT 1"
    )
    rows = record.workspace.database.query(sql, (f"%{found.id}%", found.id))
    return read_note(record.store, json.loads(rows[0][0]).get("error")) if rows else None
