"""Runs: one execution of a step, an action or the user's own code, with what went in, what came out, who, when."""

from __future__ import annotations

import fcntl
import logging
import math
import re
import shutil
import socket
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

from treadle.core import run_facts
from treadle.core.account import account_name
from treadle.core.artifacts import Artifact
from treadle.core.digest import canonical_json, parsed
from treadle.core.errors import TreadleError
from treadle.core.executors import Executor, InProcess
from treadle.core.fact import Fact
from treadle.core.identifiers import new_id
from treadle.core.journal import Journal
from treadle.core.keys import Keys
from treadle.core.ledger import Ledger
from treadle.core.run import METRICS, Progress
from treadle.core.run import Run as Run
from treadle.core.run_record import ARTIFACTS as ARTIFACTS
from treadle.core.run_record import RUNS as RUNS
from treadle.core.run_record import RunRecord as RunRecord
from treadle.core.run_values import RUN_VALUES as RUN_VALUES
from treadle.core.secrets import conceal
from treadle.core.state import State
from treadle.core.store import Store

_log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10.0
LEASE = "run:"
SYSTEM = "system."  # metrics of the process and the machine begin so

_DIGEST = re.compile(r"b3:[0-9a-f]{64}")  # in JSON, where nothing else looks like one


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
        identifier = self.begin(
            step,
            {"version": version, "key": key, "parameters": parameters, "inputs": inputs, "seed": seed, "kind": kind},
            folder,
        )
        return Run(self, identifier, seed, progress, folder, executor or InProcess())

    def begin(self, step: str, body: dict[str, Any], folder: Path) -> str:
        """The first row of a run, with what it knows of its surroundings; from here on it has to be finished."""
        identifier = new_id("run")
        self.state.take_lease(LEASE + identifier)
        known = {
            "run": identifier,
            "step": step,
            "commit": run_facts.source(folder).revision,
            "environment": self.store.put_bytes(run_facts.environment()),
            "surroundings": run_facts.keep_surroundings(folder, self.store),
            "actor": self.keyed_actor(),
            "machine": run_facts.machine(),
        }
        # As they are read again: YAML has keys that are numbers, JSON none, and rows are compared with what is read.
        known["parameters"] = parsed(canonical_json(body["parameters"]).decode())
        self.ledger.append(Fact("run.started", body | known))
        self._keep_beating(identifier)
        return identifier

    def note(
        self,
        identifier: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        note: str | None = None,
        texts: str | None = None,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, Artifact] | None = None,
    ) -> None:
        """Add to a run, also to one that has ended. ``note`` and ``texts`` name objects in the store."""
        made = dict(outputs or {})
        more = {"parameters": dict(parameters)} if parameters else {}
        body = {
            **more,
            "run": identifier,
            "tags": dict(tags or {}),
            "note": note,
            "texts": texts,
            "inputs": dict(inputs or {}),
            "outputs": {name: artifact.digest for name, artifact in made.items()},
        }
        self.ledger.append(*_made(made.values(), identifier), Fact("run.noted", body))

    def finish(
        self,
        run: Run,
        status: str,
        *,
        seconds: float,
        outputs: dict[str, Artifact] | None = None,
        made: Iterable[Artifact] | None = None,
        error: str | None = None,
        facts: list[Fact] | None = None,
    ) -> None:
        """Close a run, with its artifacts and any other fact, in one transaction.

        ``made``: the outputs that have no row yet, by default all.
        """
        outputs = outputs or {}
        made = outputs.values() if made is None else made
        body = {
            "run": run.id,
            "status": status,
            "seconds": round(seconds, 3),
            "metrics": run.metrics,
            "outputs": {name: artifact.digest for name, artifact in outputs.items()},
            "error": self.keep_text(error) if error else None,
        }
        self.ledger.append(*_made(made, run.id), *(facts or []), Fact("run.finished", body))
        self._beating.discard(run.id)
        self.state.drop_lease(LEASE + run.id)
        shutil.rmtree(run.scratch, ignore_errors=True)

    def keep_text(self, text: str) -> str:
        """An error or a note in the store; salted, because it may quote one person's text."""
        return self.store.put_bytes(canonical_json({"salt": token_hex(16), "text": conceal(text)}))

    def sweep(self) -> list[str]:
        """Mark runs whose process is gone as crashed; returns their ids. One process at a time does it."""
        with (self.store.root / "sweep.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            dead = self.state.dead_leases(LEASE)  # first: after this their processes can say no more
            running = {record.id: record for record in self.find(status="running")}
            crashed = []
            for lease in [*dead, *self._without_lease()]:
                record = running.pop(lease.removeprefix(LEASE), None)
                if record is not None:
                    self.ledger.append(Fact("run.finished", self._crash(record)))
                    crashed.append(record.id)
                self.state.drop_lease(lease)
            return crashed

    def _crash(self, record: RunRecord) -> dict[str, Any]:
        """The last row of a run that was cut off. What it said before it died is kept."""
        metrics: dict[str, float] = {}
        if record.facts.get("kind") == "experiment":
            for point in self.journal.find_all(METRICS, record.id):
                metrics.update({name: value for name, value in point["values"].items() if shown(name, value)})
        body = {"run": record.id, "status": "crashed", "seconds": None, "metrics": metrics}
        return {**body, "outputs": record.outputs, "error": None}

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
        return RunRecord.many(self.ledger.database.query(sql, values))

    def get(self, identifier: str) -> RunRecord | None:
        """One run by its id."""
        rows = self.ledger.database.query("SELECT * FROM runs WHERE id = ?", (identifier,))
        return RunRecord.of(rows[0]) if rows else None

    def producer(self, digest: str) -> RunRecord | None:
        """The run that first made an artifact."""
        sql = "SELECT run FROM artifacts WHERE digest = ? ORDER BY seq LIMIT 1"
        rows = self.ledger.database.query(sql, (digest,))
        return self.get(rows[0][0]) if rows else None

    def taking(self, digest: str) -> list[RunRecord]:
        """Runs that took an artifact, latest first."""
        sql = "SELECT * FROM runs WHERE inputs LIKE ? ORDER BY seq DESC"
        return RunRecord.many(self.ledger.database.query(sql, (f"%{digest}%",)))

    def edges(self) -> list[tuple[set[str], tuple[str, ...]]]:
        """Of each run that made something the artifacts it took and those it made, the latest run first; also of one
        that failed after it had made them."""
        sql = "SELECT inputs, outputs FROM runs WHERE outputs <> '{}' ORDER BY seq DESC"
        rows = self.ledger.database.query(sql)
        return [(set(_DIGEST.findall(inputs)), tuple(_DIGEST.findall(outputs))) for inputs, outputs in rows]

    def keyed_person(self, person: str) -> str:
        """As `Keys.keyed_person`."""
        return self.keys.keyed_person(person)

    def keyed_actor(self) -> str:
        """Who is at it, as a keyed digest."""
        return self.keys.keyed("actor", f"{account_name()}@{socket.gethostname()}")

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


def shown(name: str, value: Any) -> bool:
    """Whether a logged value may stand among a run's final metrics."""
    return isinstance(value, int | float) and math.isfinite(value) and not name.startswith(SYSTEM)


def _made(artifacts: Iterable[Artifact], run: str) -> list[Fact]:
    return [
        Fact(
            "artifact",
            {
                "digest": artifact.digest,
                "kind": artifact.kind,
                "bytes": artifact.size,
                "documents": artifact.document_count(),
                "run": run,
            },
        )
        for artifact in artifacts
    ]
