"""What changed between two versions, artifacts or runs: settings, documents, metrics, items, environment."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from treadle.core.artifacts import Artifact
from treadle.core.document_ids import DOCUMENT_PREFIX
from treadle.core.errors import UserError
from treadle.core.runs import RunRecord
from treadle.core.verify import erased_by
from treadle.evals.report import EvaluationReport
from treadle.record.document_lists import ID, ListReader, differing
from treadle.record.record import Record
from treadle.record.reference import resolve
from treadle.stages.track.flips import Asked, Flips, flips, report_of
from treadle.stages.track.names import DocumentNames

SHOWN = 20  # names of documents, and items, on either side


@dataclass
class Difference:
    """Each part is empty where nothing changed. ``settings``, ``metrics`` and ``environment`` map a name to [a, b];
    ``intervals`` the name of such a metric to the 95 % intervals of both, None where there is none. A document that
    ``changed`` stands at the same place in the same source under another id; it counts as added and as removed as well,
    and is listed there after the others. ``erased`` names, of ``a`` and ``b``, those that are gone with a person, with
    the request: their documents are not compared."""

    a: str
    b: str
    settings: dict[str, list[Any]] = field(default_factory=dict)
    metrics: dict[str, list[Any]] = field(default_factory=dict)
    environment: dict[str, list[Any]] = field(default_factory=dict)
    documents: dict[str, int] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    intervals: dict[str, list[list[float] | None]] = field(default_factory=dict)
    items: Flips | None = None
    erased: dict[str, str] = field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def difference(
    record: Record, a: str, b: str, *, metric: str = "", shown: int = SHOWN, most_bytes: int | None = None
) -> Difference:
    """Compare two versions, artifacts or runs; ``UserError`` for things that have no history of their own.

    ``metric`` tells items apart, ``shown`` bounds each list, ``most_bytes`` refuses larger evaluations.
    """
    first, second = _side(record, a), _side(record, b)
    found = Difference(a, b)
    found.settings = _unlike(_settings(first.history), _settings(second.history))
    found.metrics = _unlike(_metrics(record, first), _metrics(record, second))
    sure = [_intervals(record, side) for side in (first, second)]
    found.intervals = {
        name: [each.get(name) for each in sure] for name in found.metrics if any(name in each for each in sure)
    }
    found.environment = _unlike(_environment(record, first), _environment(record, second))
    _documents(record, found, first, second, shown)
    asked = (_asked(record, first), _asked(record, second))
    found.items = flips(record, *asked, metric, shown=shown, most_bytes=most_bytes)
    return found


@dataclass(frozen=True)
class _Side:
    artifact: Artifact | None
    kind: str
    history: tuple[RunRecord, ...]  # the run that made it, and those that made what that run took


def _side(record: Record, ref: str) -> _Side:
    reference = resolve(record, ref, DocumentNames(record).locate)
    if reference.kind == "run":
        run = record.runs.get(reference.id)
        assert run is not None
        return _Side(None, "run", (run,))
    if reference.kind != "artifact":
        raise UserError(f"diff {ref}: expected two versions, artifacts or runs, such as model@v1 model@v2")
    history: list[RunRecord] = []
    waiting, seen = [reference.id], set()
    while waiting:
        digest = waiting.pop(0)
        run = record.runs.producer(digest)
        if digest in seen or run is None:
            continue
        seen.add(digest)
        if run.id not in {each.id for each in history}:
            history.append(run)
        for value in run.inputs.values():
            waiting.extend(value if isinstance(value, list) else [value] if value else [])
    return _Side(Artifact(reference.id, record.store), reference.of, tuple(history))


def _settings(history: tuple[RunRecord, ...]) -> dict[str, Any]:
    return {f"{run.step}.{name}": value for run in history for name, value in run.parameters.items()}


def _metrics(record: Record, side: _Side) -> dict[str, Any]:
    """Metrics of the run itself, and of every evaluation of the artifact."""
    return {f"{run.step}.{name}": value for run in _measuring(record, side) for name, value in run.metrics.items()}


def _intervals(record: Record, side: _Side) -> dict[str, list[float]]:
    """The intervals of those that are scores of an evaluation."""
    found: dict[str, list[float]] = {}
    for run in _measuring(record, side):
        report = report_of(record, run)
        for name, score in report.scores().items() if report else ():
            if run.metrics.get(name) == score["value"]:
                found[f"{run.step}.{name}"] = [score["low"], score["high"]]
    return found


def _measuring(record: Record, side: _Side) -> list[RunRecord]:
    """The run itself and those that evaluated what it made, the latest last."""
    runs = list(side.history[:1])
    if side.artifact is not None:
        digest = side.artifact.digest
        runs += [
            run
            for run in record.runs.taking(digest)
            if run.status == "done" and digest in run.inputs.values() and "evaluat" in run.step
        ]
    return runs[::-1]


def _asked(record: Record, side: _Side) -> Asked:
    if side.artifact is None:
        return Asked(None, report_of(record, side.history[0]))
    if side.kind == EvaluationReport.kind:
        report = EvaluationReport(side.artifact.digest, record.store)
        return Asked(None, report if record.store.has(report.digest) and report.has("items.jsonl") else None)
    return Asked(side.artifact.digest if side.kind == "model" else None, None)


def _environment(record: Record, side: _Side) -> dict[str, Any]:
    if not side.history:
        return {}
    run = side.history[0]
    stored = json.loads(record.store.read(run.facts["environment"]))
    return {"python": stored["python"], "commit": run.facts["commit"], **stored["packages"]}


def _documents(record: Record, found: Difference, first: _Side, second: _Side, shown: int) -> None:
    if first.artifact is None or second.artifact is None:
        return
    for ref, artifact in ((found.a, first.artifact), (found.b, second.artifact)):
        request = erased_by(record.workspace, artifact.digest)
        if request is not None:
            found.erased[ref] = request
    if found.erased:
        return
    before, now = (_ids(record, side.artifact.digest) for side in (first, second) if side.artifact)
    gained, lost = differing(now, before)
    added, removed = _names(gained), _names(lost)
    names = DocumentNames(record)
    # Only what is on both sides can have changed, so there is nothing to look up where one of them is empty.
    places = names.places([*added, *removed]) if added and removed else {}
    both = {places[each] for each in added if each in places} & {places[each] for each in removed if each in places}
    found.documents = {
        "a": len(before) // ID,
        "b": len(now) // ID,
        "added": len(added),
        "removed": len(removed),
        "changed": len(both),
    }
    found.changed = [locator for _, locator in sorted(both)[:shown]]
    for listed, ids in ((found.added, added), (found.removed, removed)):
        listing = sorted(ids, key=lambda each: places.get(each) in both)[:shown]
        known = {each: places[each][1] for each in listing if each in places} if places else names.label(listing)
        listed += [known.get(document, document) for document in listing]


def _ids(record: Record, digest: str) -> bytes:
    """The sorted ids of the documents an artifact was made from."""
    reader = ListReader(record.store)
    name = reader.of_artifact(digest)
    return reader.read(name) if name else b""


def _names(ids: bytes) -> list[str]:
    return [f"{DOCUMENT_PREFIX}{ids[place : place + ID].hex()}" for place in range(0, len(ids), ID)]


def _unlike(a: dict[str, Any], b: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [a.get(name), b.get(name)] for name in sorted({*a, *b}) if a.get(name) != b.get(name)}
