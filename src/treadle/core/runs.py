"""A run: one execution of a step or an action, with what went in, what came out, who, when, on what."""

from __future__ import annotations

import functools
import getpass
import json
import logging
import os
import platform
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from treadle.core.artifacts import Artifact, Builder
from treadle.core.database import Cursor
from treadle.core.digest import canonical_json
from treadle.core.errors import TreadleError
from treadle.core.executors import Executor, InProcess
from treadle.core.identifiers import new_id
from treadle.core.journal import Journal
from treadle.core.keys import Keys
from treadle.core.ledger import Fact, Ledger, Projection, Row, now
from treadle.core.secrets import conceal
from treadle.core.state import State
from treadle.core.store import Store

A = TypeVar("A", bound=Artifact)
Progress = Callable[[float, float | None, str, str], None]

_log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10.0
LEASE = "run:"

_DIGEST = re.compile(r"b3:[0-9a-f]{64}")  # in JSON, where nothing else looks like one

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


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What the record says of a run. ``status`` is running, done, failed or crashed; ``facts`` its surroundings."""

    id: str
    step: str
    key: str
    status: str
    started: str
    seconds: float | None
    parameters: dict[str, Any]
    metrics: dict[str, float]
    inputs: dict[str, Any]
    outputs: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        """The shape that ``treadle runs --json`` promises."""
        shown = ("id", "step", "status", "started", "seconds", "parameters", "metrics", "inputs", "outputs")
        whole = asdict(self)
        return {name: whole[name] for name in shown}


def _project_run(cursor: Cursor, row: Row) -> None:
    body = row.body
    if row.kind == "run.started":
        facts = {name: body[name] for name in ("version", "seed", "commit", "environment", "actor", "machine", "kind")}
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
    else:
        cursor.execute(
            "UPDATE runs SET status = ?, seconds = ?, metrics = ?, outputs = ? WHERE id = ?",
            (body["status"], body["seconds"], _text(body["metrics"]), _text(body["outputs"]), body["run"]),
        )


def _project_artifact(cursor: Cursor, row: Row) -> None:
    body = row.body
    cursor.execute(
        "INSERT INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest, run) DO NOTHING",
        (body["digest"], body["run"], body["kind"], body["bytes"], body["documents"], row.time, row.seq),
    )


RUNS = Projection("runs", _DDL, frozenset({"run.started", "run.finished"}), _project_run)
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


class Run:
    """What a step is given: make artifacts, log numbers, tell how far it is. ``folder`` is the project's."""

    def __init__(
        self, runs: Runs, identifier: str, seed: int, progress: Progress, folder: Path, executor: Executor
    ) -> None:
        self.id = identifier
        self.folder = folder
        self.executor = executor
        self.store = runs.store
        self.seed = seed
        self.metrics: dict[str, float] = {}
        self.scratch = runs.store.new_folder("run-")
        self._runs = runs
        self._progress = progress

    def create(self, kind: type[A]) -> Builder[A]:
        """A folder to fill and commit as an artifact of this kind; use it in a ``with`` block."""
        return Builder(kind, self._runs.store)

    def log(self, step: int | None = None, **metrics: float) -> None:
        """Points over time (a loss per step); kept in the journal."""
        row = {
            "id": self.id,
            "time": now(),
            "step": step,
            "values": {k: float(v) for k, v in metrics.items()},
        }
        self._runs.journal.append("metrics", row)

    def summary(self, **metrics: float) -> None:
        """The run's final numbers; kept in the ledger."""
        self.metrics.update({name: float(value) for name, value in metrics.items()})

    def progress(self, done: float, total: float | None, unit: str, note: str = "") -> None:
        """How far it is, for whoever watches."""
        self._progress(done, total, unit, note)

    def keyed(self, person: str) -> str:
        """The keyed digest that stands for a person in everything that is stored."""
        return self._runs.keyed_person(person)


class Runs:
    """Starts, finishes and finds runs; the ledger's rows about them are written here only."""

    def __init__(self, ledger: Ledger, journal: Journal, state: State, store: Store, keys: Keys) -> None:
        self.ledger, self.journal, self.state, self.store, self.keys = ledger, journal, state, store, keys
        self._beating: set[str] = set()
        self._beat: threading.Thread | None = None
        self._closed = threading.Event()

    def start(
        self,
        step: str,
        *,
        version: int,
        key: str,
        parameters: dict[str, Any],
        inputs: dict[str, Any],
        seed: int,
        progress: Progress,
        folder: Path,
        executor: Executor | None = None,
        kind: str = "step",
    ) -> Run:
        """Open a run: a ledger row, and a lease that ends with this process."""
        identifier = new_id("run")
        self.state.take_lease(LEASE + identifier)
        body = {
            "run": identifier,
            "step": step,
            "kind": kind,
            "version": version,
            "key": key,
            "parameters": parameters,
            "inputs": inputs,
            "seed": seed,
            "commit": _commit(folder),
            "environment": self.store.put_bytes(_environment()),
            "actor": self.keyed_actor(),
            "machine": {"cpus": os.cpu_count(), "system": platform.system(), "arch": platform.machine()},
        }
        self.ledger.append(Fact("run.started", body))
        self._keep_beating(identifier)
        return Run(self, identifier, seed, progress, folder, executor or InProcess())

    def finish(
        self,
        run: Run,
        status: str,
        *,
        seconds: float,
        outputs: dict[str, Artifact] | None = None,
        error: str | None = None,
        facts: list[Fact] | None = None,
    ) -> None:
        """Close a run, with its artifacts and any other fact, in one transaction."""
        outputs = outputs or {}
        rows = [
            Fact(
                "artifact",
                {
                    "digest": artifact.digest,
                    "kind": artifact.kind,
                    "bytes": artifact.size,
                    "documents": artifact.document_count(),
                    "run": run.id,
                },
            )
            for artifact in outputs.values()
        ]
        body = {
            "run": run.id,
            "status": status,
            "seconds": round(seconds, 3),
            "metrics": run.metrics,
            "outputs": {name: artifact.digest for name, artifact in outputs.items()},
            "error": self._keep_error(error) if error else None,
        }
        self.ledger.append(*rows, *(facts or []), Fact("run.finished", body))
        self._beating.discard(run.id)
        self.state.drop_lease(LEASE + run.id)
        shutil.rmtree(run.scratch, ignore_errors=True)

    def _keep_error(self, error: str) -> str:
        """The text of an error in the store; salted, because it may quote one person's text."""
        return self.store.put_bytes(canonical_json({"salt": token_hex(16), "text": conceal(error)}))

    def sweep(self) -> list[str]:
        """Mark runs whose process is gone as crashed; returns their ids."""
        dead = self.state.dead_leases(LEASE)  # first: after this their processes can say no more
        running = {record.id for record in self.find(status="running")}
        crashed = []
        for lease in [*dead, *self._without_lease()]:
            identifier = lease.removeprefix(LEASE)
            if identifier in running:
                running.discard(identifier)
                body: dict[str, Any] = {
                    "run": identifier,
                    "status": "crashed",
                    "seconds": None,
                    "metrics": {},
                    "outputs": {},
                }
                self.ledger.append(Fact("run.finished", {**body, "error": None}))
                crashed.append(identifier)
            self.state.drop_lease(lease)
        return crashed

    def _without_lease(self) -> list[str]:
        # A run has its lease from before its first row until after its last, so one without was cut off.
        sql = (
            "SELECT ? || id FROM runs WHERE status = 'running' "
            "AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.name = ? || runs.id)"
        )
        return [str(row[0]) for row in self.ledger.database.query(sql, (LEASE, LEASE))]

    def find(
        self,
        *,
        key: str | None = None,
        step: str | None = None,
        status: str | None = None,
        limit: int | None = None,
    ) -> list[RunRecord]:
        """Runs, latest first, by step key, step name or status."""
        given = {"key": key, "step": step, "status": status}
        where = " AND ".join(f"{name} = ?" for name, value in given.items() if value is not None)
        sql = f"SELECT * FROM runs{' WHERE ' + where if where else ''} ORDER BY seq DESC"
        values = [value for value in given.values() if value is not None]
        if limit is not None:
            sql, values = sql + " LIMIT ?", [*values, str(limit)]
        return [_record(row) for row in self.ledger.database.query(sql, values)]

    def get(self, identifier: str) -> RunRecord | None:
        """One run by its id."""
        rows = self.ledger.database.query("SELECT * FROM runs WHERE id = ?", (identifier,))
        return _record(rows[0]) if rows else None

    def producer(self, digest: str) -> RunRecord | None:
        """The run that first made an artifact."""
        sql = "SELECT run FROM artifacts WHERE digest = ? ORDER BY seq LIMIT 1"
        rows = self.ledger.database.query(sql, (digest,))
        return self.get(rows[0][0]) if rows else None

    def taking(self, digest: str) -> list[RunRecord]:
        """Runs that took an artifact, latest first."""
        sql = "SELECT * FROM runs WHERE inputs LIKE ? ORDER BY seq DESC"
        return [_record(row) for row in self.ledger.database.query(sql, (f"%{digest}%",))]

    def edges(self) -> list[tuple[set[str], tuple[str, ...]]]:
        """Of each run that ended well the artifacts it took and those it made, the latest run first."""
        sql = "SELECT inputs, outputs FROM runs WHERE status = 'done' ORDER BY seq DESC"
        rows = self.ledger.database.query(sql)
        return [(set(_DIGEST.findall(inputs)), tuple(_DIGEST.findall(outputs))) for inputs, outputs in rows]

    def keyed_person(self, person: str) -> str:
        """The keyed digest that stands for a person in everything that is stored."""
        return self.keys.keyed("subject", person)

    def keyed_actor(self) -> str:
        """Who is at it, as a keyed digest."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container's user without a name
            user = str(os.getuid())
        return self.keys.keyed("actor", f"{user}@{socket.gethostname()}")

    def _keep_beating(self, identifier: str) -> None:
        self._beating.add(identifier)
        if self._beat is None:
            self._beat = threading.Thread(target=self._beats, name="heartbeat", daemon=True)
            self._beat.start()

    def _beats(self) -> None:
        while not self._closed.wait(HEARTBEAT_SECONDS):
            for identifier in list(self._beating):
                try:
                    self.state.beat(LEASE + identifier)
                except TreadleError as error:  # a busy database; the next beat will do
                    _log.warning("no heartbeat for %s: %s", identifier, error)

    def close(self) -> None:
        """Stop the heartbeat."""
        self._closed.set()
        if self._beat is not None:
            self._beat.join()


def _record(row: tuple[Any, ...]) -> RunRecord:
    parsed = [json.loads(text) for text in row[6:11]]
    return RunRecord(row[0], row[1], row[2], row[3], row[4], row[5], *parsed)


def _text(value: Any) -> str:
    return canonical_json(value).decode()


@functools.cache
def _environment() -> bytes:
    installed = {dist.name: dist.version for dist in distributions() if dist.name}
    return canonical_json({"format": 1, "python": platform.python_version(), "packages": installed})


def _commit(folder: Path) -> str | None:
    """The Git commit of the project's folder, with ``+`` when there are changes that are not committed."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> str | None:
        command = [git, "--no-optional-locks", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if not commit:
        return None
    return commit + "+" if ask("status", "--porcelain", "--untracked-files=no") else commit
