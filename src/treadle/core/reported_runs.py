"""Runs that somebody else does and tells us of, message by message: a program that speaks another tool's protocol.

No process of ours holds such a run. Its lease ends when nothing was heard of it for a while, and it counts as crashed
then; what is heard later makes it go on (``run.resumed``). Its commit and its user are what it says they are; its
environment and machine are not recorded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from treadle.core.artifacts import Artifact
from treadle.core.digest import canonical_json
from treadle.core.experiment import KIND, STEP
from treadle.core.fact import Fact
from treadle.core.identifiers import new_id
from treadle.core.run_facts import FORMAT
from treadle.core.run_record import RunRecord
from treadle.core.runs import LEASE, Runs, shown
from treadle.core.texts import Texts

_BEAT_SECONDS = 20.0  # between two heartbeats of one run, however much it says
_UNKNOWN = "not recorded"


class ReportedRuns:
    """Writes down what is told of runs; ``silence`` is how many seconds one may say nothing."""

    def __init__(self, runs: Runs, silence: float) -> None:
        self.runs = runs
        self._silence = silence
        self._beats: dict[str, float] = {}
        self._lock = threading.Lock()

    def begin(
        self, step: str, name: str, *, tags: Mapping[str, Any], user: str | None, commit: str | None
    ) -> RunRecord:
        """A new run, ``experiment.<step>`` among the steps. ``user`` is kept as a keyed digest."""
        runs, texts = self.runs, Texts(self.runs.keys)
        identifier = new_id("run")
        unknown = canonical_json({"format": FORMAT, "python": _UNKNOWN, "packages": {}})
        body = {
            "run": identifier,
            "step": STEP + step,
            "kind": KIND,
            "version": 1,
            "key": "",
            "name": name,
            "parameters": {},
            "inputs": {},
            "tags": texts.tags(tags),
            "seed": None,
            "texts": texts.keep(runs.store),
            "commit": commit,
            "environment": runs.store.put_bytes(unknown),
            "actor": runs.keys.keyed("actor", user) if user else _UNKNOWN,
            "machine": {},
        }
        runs.state.take_silent_lease(LEASE + identifier, self._silence)
        runs.ledger.append(Fact("run.started", body))
        return self._read(identifier)

    def heard(self, run: RunRecord) -> RunRecord:
        """Something was said of a run: it lives, and goes on where it was taken for dead."""
        if run.status == "crashed":
            return self.resume(run)
        moment = time.monotonic()
        with self._lock:
            due = moment - self._beats.get(run.id, -_BEAT_SECONDS) >= _BEAT_SECONDS
            if due:
                self._beats[run.id] = moment
        if due and run.status == "running":
            self.runs.state.beat(LEASE + run.id)
        return run

    def resume(self, run: RunRecord) -> RunRecord:
        """A run that was over goes on."""
        self.runs.state.take_silent_lease(LEASE + run.id, self._silence)
        self.runs.ledger.append(Fact("run.resumed", {"run": run.id}))
        return self._read(run.id)

    def tell(
        self,
        run: RunRecord,
        *,
        parameters: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        note: str | None = None,
        outputs: Mapping[str, Artifact] | None = None,
    ) -> None:
        """Settings, tags, a remark or artifacts, in one row. A tag that is None counts as not there."""
        texts = Texts(self.runs.keys)
        settings, marks = texts.settings(parameters or {}), texts.tags(tags or {})
        kept = self.runs.keep_text(note) if note else None
        self.runs.note(
            run.id, parameters=settings, tags=marks, note=kept, texts=texts.keep(self.runs.store), outputs=outputs
        )

    def finish(self, run: RunRecord, status: str, seconds: float | None, metrics: Mapping[str, float]) -> RunRecord:
        """It is over, or what is known of one that was over has changed."""
        body = {
            "run": run.id,
            "status": status,
            "seconds": seconds,
            "metrics": {name: value for name, value in metrics.items() if shown(name, value)},
            "outputs": run.outputs,
            "error": None,
        }
        self.runs.ledger.append(Fact("run.finished", body))
        self.runs.state.drop_lease(LEASE + run.id)
        with self._lock:
            self._beats.pop(run.id, None)
        return self._read(run.id)

    def _read(self, identifier: str) -> RunRecord:
        found = self.runs.get(identifier)
        assert found is not None
        return found
