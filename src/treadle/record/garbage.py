"""Garbage: what the store holds and nothing in the record needs.

Three sorts. *Unnamed*: objects that no row reaches, left by runs that were killed; they go by themselves once they are
older than a time of grace and than every run that is running. *Unneeded*: outputs of steps, which would run again if
somebody asked; they go where the caller sets a limit, and one `gc` row accounts for all of them, written before the
first is deleted. The manifest and a few small files of each stay, so that an answer still leads to its documents.
*Left off*: checkpoints and replies of a step that was killed, which would go on from them; they go where the caller
says how old.

Needed is: each version (or the latest N of a name), what an alias points at and the release it is served with, the
latest judgment on a version, deployments in force, an open canary, the latest turn's inputs, what the caller pins,
what a running run took, what was evaluated or reported of all these, and everything that any of it was made of.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from treadle.core.artifacts import DOCUMENT_IDS
from treadle.core.errors import Corrupt
from treadle.core.ledger import Fact
from treadle.core.reach import collected_artifacts, mentioned, reached
from treadle.core.uploads import pending
from treadle.core.verify import erased_objects, named_objects
from treadle.record.lineage import HOLDING_DOCUMENTS, PARENTS_FILE
from treadle.record.record import Record

KEEPS = (DOCUMENT_IDS, "release.json", PARENTS_FILE)  # what lineage reads of an artifact
GRACE_SECONDS = 3600.0

_DIGEST = re.compile(r"b3:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Limits:
    """``keep_versions`` of each name; ``older_than`` seconds. With neither, only what no row names is garbage.
    ``pinned`` are artifacts that stay, with all they were made of."""

    keep_versions: int | None = None
    older_than: float | None = None
    grace: float = GRACE_SECONDS
    pinned: frozenset[str] = frozenset()

    @property
    def unneeded(self) -> bool:
        """Whether outputs that nothing needs may go as well."""
        return self.keep_versions is not None or self.older_than is not None


@dataclass
class Garbage:
    """What may go: objects with their bytes. ``waiting`` is what no row names and is too young to be judged."""

    unnamed: dict[str, int] = field(default_factory=dict)
    unneeded: dict[str, int] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)  # those whose files are unneeded, with their kinds
    left_off: dict[Path, int] = field(default_factory=dict)  # files of work that was cut off and never gone on with
    waiting: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    youngest: float = 0.0  # seconds since the epoch; what was put since stays

    def public(self) -> dict[str, Any]:
        """As JSON."""
        kinds = sorted(set(self.artifacts.values()))
        return {
            "objects": len(self.unnamed) + len(self.unneeded) + len(self.left_off),
            "bytes": _bytes(self.unnamed) + _bytes(self.unneeded) + _bytes(self.left_off),
            "reasons": [
                {"reason": "named by no row", **_sum(self.unnamed)},
                {"reason": "outputs that nothing needs", **_sum(self.unneeded)},
                {"reason": "work that was left off", **_sum(self.left_off)},
            ],
            "artifacts": {kind: list(self.artifacts.values()).count(kind) for kind in kinds},
            "waiting": _sum(self.waiting),
            "kept": _sum(self.kept),
        }


def find_garbage(record: Record, limits: Limits) -> Garbage:
    """Say what may go; changes nothing. ``Corrupt`` when the manifest of an artifact is not there as it was: then
    nobody can tell which files are its own."""
    _refuse_damage(record)
    began = time.time()
    found = Garbage(youngest=min([began - limits.grace, *_running_since(record)]))
    waiting = pending(record.workspace.state)  # before the rows: what settles meanwhile is in one of the two
    collected = collected_artifacts(record.ledger)
    if limits.unneeded:
        found.artifacts = _unneeded(record, limits, began, collected.keys())
    if limits.older_than is not None:
        found.left_off = _left_off(record, began - limits.older_than)
    named = mentioned(record.ledger) | waiting
    still = reached(record.store, named, collected)
    left = collected | dict.fromkeys(found.artifacts, frozenset(KEEPS))
    live = reached(record.store, named, left) if found.artifacts else still
    for digest, stored in record.store.objects():
        if digest in live:
            found.kept[digest] = stored.length
        elif digest in still:
            found.unneeded[digest] = stored.length
        elif stored.modified >= found.youngest:
            found.waiting[digest] = stored.length
        else:
            found.unnamed[digest] = stored.length
    return found


def collect(record: Record, garbage: Garbage, limits: Limits) -> int:
    """Delete it; returns the bytes freed. The caller holds the project.

    Killed in the middle, what is left is garbage that no row reaches, and goes with the next call.
    """
    if garbage.artifacts:
        body = {
            "artifacts": sorted(garbage.artifacts),
            "keeps": list(KEEPS),
            "objects": len(garbage.unneeded),
            "bytes": sum(garbage.unneeded.values()),
            "keep_versions": limits.keep_versions,
            "older_than": limits.older_than,
        }
        record.ledger.append(Fact("gc", body), sync=True)
    freed = record.store.delete(set(garbage.unneeded), older_than=garbage.youngest) if garbage.unneeded else 0
    freed += record.store.delete(set(garbage.unnamed), older_than=garbage.youngest)
    freed += sum(garbage.left_off.values())
    for path in garbage.left_off:
        path.unlink(missing_ok=True)
    record.store.tidy()
    return freed


def _left_off(record: Record, before: float) -> dict[Path, int]:
    """Checkpoints and replies of steps that were killed. Whoever collects holds the project, so none of them runs."""
    found = {}
    for path in (record.store.root / "cache" / "checkpoints").rglob("*"):
        with suppress(FileNotFoundError):  # another command, while one only looks
            state = path.stat()
            if path.is_file() and state.st_mtime < before:
                found[path] = state.st_size
    return found


def _refuse_damage(record: Record) -> None:
    erased, _ = erased_objects(record.workspace)
    for digest, what in named_objects(record.workspace):
        if what.startswith("artifact") and digest not in erased:
            try:
                record.store.entries(digest)
            except Corrupt as error:
                raise Corrupt(f"nothing was deleted: {error}; treadle pull REMOTE mends it") from None


def _artifacts(record: Record) -> list[tuple[str, str]]:
    sql = "SELECT digest, min(kind) FROM artifacts GROUP BY digest ORDER BY min(seq)"
    return [(str(row[0]), str(row[1])) for row in record.workspace.database.query(sql)]


def _running_since(record: Record) -> list[float]:
    return [datetime.fromisoformat(run.started).timestamp() for run in record.runs.find(status="running")]


def _unneeded(record: Record, limits: Limits, now: float, collected: Iterable[str]) -> dict[str, str]:
    """Artifacts that only steps made, that are old enough, and that nothing needs; with their kinds."""
    age = limits.older_than if limits.older_than is not None else limits.grace
    before = min([now - age, *_running_since(record)])
    sql = "SELECT a.digest, a.kind, a.time, r.facts FROM artifacts a JOIN runs r ON r.id = a.run"
    made: dict[str, str] = {}
    others: set[str] = set()
    for digest, kind, moment, facts in record.workspace.database.query(sql):
        made[digest] = kind
        if json.loads(facts)["kind"] != "step" or datetime.fromisoformat(moment).timestamp() >= before:
            others.add(digest)
    needed = _needed(record, limits, others)
    erased, _ = erased_objects(record.workspace)
    return {
        digest: kind
        for digest, kind in made.items()
        if digest not in needed and digest not in collected and digest not in erased
    }


def _needed(record: Record, limits: Limits, others: set[str]) -> set[str]:
    """Roots, what was found out about them, and all that these were made of."""
    roots = _versions(record, limits.keep_versions) | _served(record) | limits.pinned
    edges = record.runs.edges()
    kinds = dict(_artifacts(record))
    needed = set(roots | others)
    for inputs, outputs in edges:
        if inputs & roots:
            needed.update(digest for digest in outputs if kinds.get(digest) not in HOLDING_DOCUMENTS)
    for run in record.runs.find(status="running"):
        needed.update(_DIGEST.findall(str(run.inputs)))
    made_of: dict[str, set[str]] = {}
    for inputs, outputs in edges:
        for digest in outputs:
            made_of.setdefault(digest, set()).update(inputs)
    waiting = list(needed)
    while waiting:
        for digest in made_of.get(waiting.pop(), ()):
            if digest not in needed:
                needed.add(digest)
                waiting.append(digest)
    return needed


def _versions(record: Record, keep: int | None) -> set[str]:
    """Digests of versions: the latest ``keep`` of each name, and those with an alias, with their releases and
    judgments."""
    query = record.workspace.database.query
    aliased = {tuple(row) for row in query("SELECT kind, name, number FROM aliases WHERE number IS NOT NULL")}
    latest: dict[tuple[str, str], int] = {}
    digests = set()
    for kind, name, number, digest in query("SELECT kind, name, number, digest FROM versions ORDER BY number DESC"):
        latest[kind, name] = latest.get((kind, name), 0) + 1
        if keep is None or latest[kind, name] <= keep or (kind, name, number) in aliased:
            digests.add(digest)
    for row in record.ledger.rows("alias"):
        body = row.body
        if (body["of"], body["name"], body["number"]) in aliased and body.get("release"):
            digests.add(body["release"])
    judgments = {row.body["model"]: row for row in record.ledger.rows("gate")}
    for model, row in judgments.items():
        if model in digests:
            digests.update((row.body["release"], row.body["report"]))
    return digests


def _served(record: Record) -> set[str]:
    """What answers or may answer, and what the latest turn takes."""
    found = {each.release for each in record.deployments.all()}
    canary = record.canaries.open()
    if canary is not None:
        found |= {canary.release, canary.champion}
    turn = record.turns.latest()
    if turn is not None:
        inputs = (turn.inputs.feedback, turn.inputs.start, turn.inputs.split, turn.inputs.model)
        found.update(digest for digest in inputs if digest)
    return found


def _sum(objects: Mapping[Any, int]) -> dict[str, int]:
    return {"objects": len(objects), "bytes": _bytes(objects)}


def _bytes(objects: Mapping[Any, int]) -> int:
    return sum(objects.values())
