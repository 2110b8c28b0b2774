"""What changed between two versions, artifacts or runs: settings, documents, metrics, environment."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from treadle.core.artifacts import Artifact
from treadle.core.errors import UserError
from treadle.core.runs import RunRecord
from treadle.record.record import Record
from treadle.record.reference import resolve
from treadle.stages.track.names import DocumentNames

SHOWN = 20  # names of documents on either side


@dataclass
class Difference:
    """Each part is empty where nothing changed. ``settings``, ``metrics`` and ``environment`` map a name to [a, b]."""

    a: str
    b: str
    settings: dict[str, list[Any]] = field(default_factory=dict)
    metrics: dict[str, list[Any]] = field(default_factory=dict)
    environment: dict[str, list[Any]] = field(default_factory=dict)
    documents: dict[str, int] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def difference(record: Record, a: str, b: str) -> Difference:
    """Compare two versions, artifacts or runs; ``UserError`` for things that have no history of their own."""
    first, second = _side(record, a), _side(record, b)
    found = Difference(a, b)
    found.settings = _unlike(_settings(first.history), _settings(second.history))
    found.metrics = _unlike(_metrics(record, first), _metrics(record, second))
    found.environment = _unlike(_environment(record, first), _environment(record, second))
    _documents(record, found, first, second)
    return found


@dataclass(frozen=True)
class _Side:
    artifact: Artifact | None
    history: tuple[RunRecord, ...]  # the run that made it, and those that made what that run took


def _side(record: Record, ref: str) -> _Side:
    reference = resolve(record, ref, DocumentNames(record).locate)
    if reference.kind == "run":
        run = record.runs.get(reference.id)
        assert run is not None
        return _Side(None, (run,))
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
    return _Side(Artifact(reference.id, record.store), tuple(history))


def _settings(history: tuple[RunRecord, ...]) -> dict[str, Any]:
    return {f"{run.step}.{name}": value for run in history for name, value in run.parameters.items()}


def _metrics(record: Record, side: _Side) -> dict[str, Any]:
    """Metrics of the run itself, and of every evaluation of the artifact."""
    runs = list(side.history[:1])
    if side.artifact is not None:
        digest = side.artifact.digest
        runs += [
            run
            for run in record.runs.taking(digest)
            if run.status == "done" and digest in run.inputs.values() and "evaluat" in run.step
        ]
    return {f"{run.step}.{name}": value for run in reversed(runs) for name, value in run.metrics.items()}


def _environment(record: Record, side: _Side) -> dict[str, Any]:
    if not side.history:
        return {}
    run = side.history[0]
    stored = json.loads(record.store.read(run.facts["environment"]))
    return {"python": stored["python"], "commit": run.facts["commit"], **stored["packages"]}


def _documents(record: Record, found: Difference, first: _Side, second: _Side) -> None:
    if first.artifact is None or second.artifact is None:
        return
    held = [set(side.artifact.document_ids()) if side.artifact else set() for side in (first, second)]
    added, removed = sorted(held[1] - held[0]), sorted(held[0] - held[1])
    found.documents = {"a": len(held[0]), "b": len(held[1]), "added": len(added), "removed": len(removed)}
    names = DocumentNames(record).label([*added[:SHOWN], *removed[:SHOWN]])
    found.added = [names.get(document, document) for document in added[:SHOWN]]
    found.removed = [names.get(document, document) for document in removed[:SHOWN]]


def _unlike(a: dict[str, Any], b: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [a.get(name), b.get(name)] for name in sorted({*a, *b}) if a.get(name) != b.get(name)}
