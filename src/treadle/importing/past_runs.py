"""Runs that were done elsewhere, as rows of this ledger: their figures, and "not recorded" for the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.identifiers import id_at
from treadle.core.ledger import Fact
from treadle.core.secrets import is_secret
from treadle.core.texts import is_word
from treadle.importing.admission import iso
from treadle.project import Project
from treadle.record.note import keep_note
from treadle.record.version import NOT_RECORDED

STEP, KIND = "imported", "imported"
_NUMBER = re.compile(r"[-+]?\d{1,40}(?:\.\d{0,40})?(?:[eE][-+]?\d{1,4})?\Z|[-+]?\.\d{1,40}(?:[eE][-+]?\d{1,4})?\Z")
_COMMIT = re.compile(r"[0-9a-f]{7,64}\+?\Z")
_AT_ONCE = 200  # runs in one transaction


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run of another tool. ``origin`` is its id there, ``began`` in milliseconds since 1970; ``points`` are time
    (likewise), step, name and value; ``note`` what is said of it in words."""

    origin: str
    began: int
    seconds: float | None
    status: Literal["done", "failed", "crashed"]
    parameters: dict[str, str]
    points: tuple[tuple[int, int, str, float], ...]
    user: str = ""
    commit: str | None = None
    note: str = ""

    @property
    def id(self) -> str:
        """The same whenever it is brought in."""
        return id_at("run", self.began, blake3_bytes(self.origin.encode()))


def plain(parameters: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Parameters that are plain words and numbers, and those that are texts: the ledger holds no text. What is a
    secret is in neither: ``[secret]`` stands in its place."""
    shown = {name: "[secret]" if is_secret(name, value) else value for name, value in parameters.items()}
    kept = {name: value for name, value in shown.items() if is_word(name) and (is_word(value) or _NUMBER.match(value))}
    return kept, {name: value for name, value in shown.items() if name not in kept}


def record_past(project: Project, runs: Iterable[PastRun]) -> tuple[int, int]:
    """Write them down; how many were new, and how many points were left out because they are no finite numbers."""
    workspace = project.record.workspace
    environment = workspace.store.put_bytes(canonical_json({"format": 1, "python": NOT_RECORDED, "packages": {}}))
    rows: list[Fact] = []
    new, left_out = 0, 0
    for run in runs:
        if workspace.runs.get(run.id) is not None:
            continue
        new += 1
        last: dict[str, float] = {}
        for moment, step, name, value in run.points:
            if not math.isfinite(value):
                left_out += 1
                continue
            last[name] = value
            time = iso(datetime.fromtimestamp(moment / 1000, UTC))
            workspace.journal.append("metrics", {"id": run.id, "time": time, "step": step, "values": {name: value}})
        rows += _rows(project, run, environment, last)
        if len(rows) >= 2 * _AT_ONCE:
            workspace.ledger.append(*rows)
            rows = []
    if rows:
        workspace.ledger.append(*rows)
    return new, left_out


def _rows(project: Project, run: PastRun, environment: str, last: dict[str, float]) -> tuple[Fact, Fact]:
    workspace = project.record.workspace
    started = {
        "run": run.id,
        "step": STEP,
        "kind": KIND,
        "version": 1,
        "key": blake3_bytes(run.id.encode()),
        "parameters": run.parameters,
        "inputs": {},
        "seed": None,
        "commit": run.commit if run.commit and _COMMIT.match(run.commit) else None,
        "environment": environment,
        "actor": workspace.keys.keyed("actor", run.user) if run.user else NOT_RECORDED,
        "machine": {},
        "note": keep_note(workspace.store, run.note),
    }
    finished = {
        "run": run.id,
        "status": run.status,
        "seconds": run.seconds,
        "metrics": last,
        "outputs": {},
        "error": None,
    }
    return Fact("run.started", started), Fact("run.finished", finished)
