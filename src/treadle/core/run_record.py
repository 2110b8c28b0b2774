"""What the ledger says of runs and of the artifacts they made, as two query tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, overload

from treadle.core.database import Cursor
from treadle.core.digest import canonical_json, parsed
from treadle.core.errors import Corrupt
from treadle.core.fact import Projection, Row

T = TypeVar("T")

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
_TOGETHER = 500  # runs whose objects are read at once
_FACTS = ("version", "seed", "commit", "environment", "actor", "machine", "kind")
_LATER_FACTS = ("name", "tags", "texts", "surroundings")  # rows of earlier versions have none


class _Object(Generic[T]):
    """What is an object in the table: read when it is first asked for, since most of a long list never is, and then for
    all runs that were read together, since of a list that is shown all are."""

    def __init__(self, place: int, doc: str) -> None:
        self._place = place
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, record: None, owner: type) -> _Object[T]: ...
    @overload
    def __get__(self, record: RunRecord, owner: type) -> T: ...
    def __get__(self, record: RunRecord | None, owner: type) -> Any:
        if record is None:
            return self
        if record.together is None:
            found = parsed(record.stored[self._place])
        else:
            found = record.together.objects(self._place)[record.place]
        record.__dict__[self._name] = found  # which is seen before this the next time
        return found


class _Together:
    """Runs that were read together: when the objects of one are asked for, so are those of the others."""

    def __init__(self, stored: list[tuple[str, ...]]) -> None:
        self._stored = stored
        self._objects: dict[int, list[Any]] = {}

    def objects(self, place: int) -> list[Any]:
        """One column as objects; reading it as one text takes half the time."""
        if place not in self._objects:
            try:
                self._objects[place] = parsed(f"[{','.join([each[place] for each in self._stored])}]")
            except ValueError:
                raise Corrupt("the table runs is damaged; run treadle verify") from None
        return self._objects[place]


@dataclass(unsafe_hash=True)  # frozen would take thrice as long to make, and a search makes thousands
class RunRecord:
    """What the record says of a run. ``status`` is running, done, failed or crashed."""

    id: str
    step: str
    key: str
    status: str
    started: str
    seconds: float | None
    stored: tuple[Any, ...]
    together: _Together | None = field(default=None, repr=False, compare=False)
    place: int = field(default=0, repr=False, compare=False)

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> RunRecord:
        """From a row of the table."""
        identifier, step, key, status, started, seconds = row[:6]
        return cls(identifier, step, key, status, started, seconds, row[6:11])

    @classmethod
    def many(cls, rows: Sequence[tuple[Any, ...]]) -> list[RunRecord]:
        """From rows of the table that are read together."""
        made: list[RunRecord] = []
        for start in range(0, len(rows), _TOGETHER):
            part = rows[start : start + _TOGETHER]
            together = _Together([row[6:11] for row in part])
            for place, row in enumerate(part):
                identifier, step, key, status, started, seconds = row[:6]
                made.append(cls(identifier, step, key, status, started, seconds, row[6:11], together, place))
        return made

    parameters = _Object[dict[str, Any]](0, "Settings by name.")
    metrics = _Object[dict[str, float]](1, "Final numbers by name.")
    inputs = _Object[dict[str, Any]](2, "Digests of what it took: one or a list under a name, None for none.")
    outputs = _Object[dict[str, str]](3, "Digests of what it made, by name.")
    facts = _Object[dict[str, Any]](4, "Its surroundings: version, seed, commit, who, on what, tags.")

    def public(self) -> dict[str, Any]:
        """The shape that ``treadle runs --json`` promises."""
        shown = ("id", "step", "status", "started", "seconds", "parameters", "metrics", "inputs", "outputs")
        return {name: getattr(self, name) for name in shown}


_INSERT = f"INSERT INTO runs VALUES ({', '.join('?' * 12)})"


def _began(row: Row) -> list[Any]:
    """A run's row in the table as it starts."""
    body = row.body
    facts = {name: body[name] for name in _FACTS}
    for name in _LATER_FACTS:
        if name in body:
            facts[name] = body[name]
    given = _text(body["parameters"]), "{}", _text(body["inputs"]), "{}", _text(facts), row.seq
    return [body["run"], body["step"], body["key"], "running", row.time, None, *given]


def _started(cursor: Cursor, row: Row) -> None:
    cursor.execute(_INSERT, _began(row))


def _noted(cursor: Cursor, row: Row) -> None:
    """What a run of the user's own code said while it went on is added to what was there."""
    body = row.body
    cursor.execute("SELECT parameters, inputs, outputs, facts FROM runs WHERE id = ?", (body["run"],))
    parameters, inputs, outputs, facts = (parsed(text) for text in cursor.fetchone())
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


def _project_runs(cursor: Cursor, rows: Sequence[Row]) -> None:
    """Runs that start and end among the rows, as nearly all do, are written once."""
    begun: dict[str, list[Any]] = {}
    for row in rows:
        body = row.body
        if row.kind == "run.started" and body["run"] not in begun:
            begun[body["run"]] = _began(row)
        elif row.kind == "run.finished" and body["run"] in begun:
            there = begun[body["run"]]
            there[3], there[5], there[7] = body["status"], body["seconds"], _text(body["metrics"])
            there[9] = _text(body["outputs"])
        else:
            cursor.executemany(_INSERT, begun.values())
            begun.clear()
            _APPLY[row.kind](cursor, row)
    cursor.executemany(_INSERT, begun.values())


_INSERT_ARTIFACT = "INSERT INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest, run) DO NOTHING"


def _artifact(row: Row) -> tuple[Any, ...]:
    body = row.body
    return body["digest"], body["run"], body["kind"], body["bytes"], body["documents"], row.time, row.seq


def _project_artifact(cursor: Cursor, row: Row) -> None:
    cursor.execute(_INSERT_ARTIFACT, _artifact(row))


def _project_artifacts(cursor: Cursor, rows: Sequence[Row]) -> None:
    cursor.executemany(_INSERT_ARTIFACT, map(_artifact, rows))


RUNS = Projection("runs", _DDL, frozenset(_APPLY), _project_run, _project_runs)
ARTIFACTS = Projection(
    "artifacts",
    """
CREATE TABLE IF NOT EXISTS artifacts (
    digest TEXT NOT NULL, run TEXT NOT NULL, kind TEXT NOT NULL, bytes INTEGER NOT NULL, documents INTEGER NOT NULL,
    time TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (digest, run));
""",
    frozenset({"artifact"}),
    _project_artifact,
    _project_artifacts,
)


def _text(value: Any) -> str:
    return canonical_json(value).decode()
