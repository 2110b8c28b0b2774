"""What the ledger says of runs and of the artifacts they made, as two query tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from treadle.core.database import Cursor
from treadle.core.digest import canonical_json
from treadle.core.fact import Projection, Row

_DDL = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, step TEXT NOT NULL, key TEXT NOT NULL, status TEXT NOT NULL, started TEXT NOT NULL,
    seconds REAL, parameters TEXT NOT NULL, metrics TEXT NOT NULL, inputs TEXT NOT NULL, outputs TEXT NOT NULL,
    facts TEXT NOT NULL, seq INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS runs_key ON runs (key, status);
CREATE INDEX IF NOT EXISTS runs_step ON runs (step, seq);
CREATE INDEX IF NOT EXISTS runs_seq ON runs (seq);
CREATE INDEX IF NOT EXISTS runs_status ON runs (status, seq);
"""
_FACTS = ("version", "seed", "commit", "environment", "actor", "machine", "kind")
_LATER_FACTS = ("name", "tags", "texts", "surroundings")  # rows of earlier versions have none


@dataclass(frozen=True)
class RunRecord:
    """What the record says of a run. ``status`` is running, done, failed or crashed; what is an object in the table is
    read when it is asked for, because most of a long list never is."""

    id: str
    step: str
    key: str
    status: str
    started: str
    seconds: float | None
    stored: tuple[Any, ...]

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> RunRecord:
        """From a row of the table."""
        identifier, step, key, status, started, seconds = row[:6]
        return cls(identifier, step, key, status, started, seconds, row[6:11])

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Settings by name."""
        return _object(self.stored[0])

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Final numbers by name."""
        return _object(self.stored[1])

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Digests of what it took: one or a list under a name, None where there was none."""
        return _object(self.stored[2])

    @cached_property
    def outputs(self) -> dict[str, str]:
        """Digests of what it made, by name."""
        return _object(self.stored[3])

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Its surroundings: version, seed, commit, who, on what, tags."""
        return _object(self.stored[4])

    def public(self) -> dict[str, Any]:
        """The shape that ``treadle runs --json`` promises."""
        shown = ("id", "step", "status", "started", "seconds", "parameters", "metrics", "inputs", "outputs")
        return {name: getattr(self, name) for name in shown}


def _started(cursor: Cursor, row: Row) -> None:
    body = row.body
    facts = {name: body[name] for name in _FACTS} | {name: body[name] for name in _LATER_FACTS if name in body}
    cursor.execute(
        "INSERT INTO runs VALUES (?, ?, ?, 'running', ?, NULL, ?, '{}', ?, '{}', ?, ?)",
        (
            body["run"],
            body["step"],
            body["key"],
            row.time,
            _text(body["parameters"]),
            _text(body["inputs"]),
            _text(facts),
            row.seq,
        ),
    )


def _noted(cursor: Cursor, row: Row) -> None:
    """What a run of the user's own code said while it went on is added to what was there."""
    body = row.body
    cursor.execute("SELECT parameters, inputs, outputs, facts FROM runs WHERE id = ?", (body["run"],))
    parameters, inputs, outputs, facts = (json.loads(text) for text in cursor.fetchone())
    parameters |= body.get("parameters", {})  # rows of earlier versions have none
    facts["tags"] = facts.get("tags", {}) | body["tags"]
    for one, many in (("note", "notes"), ("texts", "more_texts")):
        if body[one]:
            facts[many] = [*facts.get(many, []), body[one]]
    cursor.execute(
        "UPDATE runs SET parameters = ?, inputs = ?, outputs = ?, facts = ? WHERE id = ?",
        (
            _text(parameters),
            _text(inputs | body["inputs"]),
            _text(outputs | body["outputs"]),
            _text(facts),
            body["run"],
        ),
    )


def _finished(cursor: Cursor, row: Row) -> None:
    body = row.body
    cursor.execute(
        "UPDATE runs SET status = ?, seconds = ?, metrics = ?, outputs = ? WHERE id = ?",
        (body["status"], body["seconds"], _text(body["metrics"]), _text(body["outputs"]), body["run"]),
    )


def _resumed(cursor: Cursor, row: Row) -> None:
    """Whoever does it said something more after it was over, or was taken to be."""
    cursor.execute("UPDATE runs SET status = 'running', seconds = NULL WHERE id = ?", (row.body["run"],))


_APPLY = {"run.started": _started, "run.noted": _noted, "run.resumed": _resumed, "run.finished": _finished}


def _project_run(cursor: Cursor, row: Row) -> None:
    _APPLY[row.kind](cursor, row)


def _project_artifact(cursor: Cursor, row: Row) -> None:
    body = row.body
    cursor.execute(
        "INSERT INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest, run) DO NOTHING",
        (body["digest"], body["run"], body["kind"], body["bytes"], body["documents"], row.time, row.seq),
    )


RUNS = Projection("runs", _DDL, frozenset(_APPLY), _project_run)
ARTIFACTS = Projection(
    "artifacts",
    """
CREATE TABLE IF NOT EXISTS artifacts (
    digest TEXT NOT NULL, run TEXT NOT NULL, kind TEXT NOT NULL, bytes INTEGER NOT NULL, documents INTEGER NOT NULL,
    time TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (digest, run));
""",
    frozenset({"artifact"}),
    _project_artifact,
)


def _text(value: Any) -> str:
    return canonical_json(value).decode()


def _object(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found
