"""What all calls share: the record, the runs told of, the points, and where artifacts are said to lie."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection
from typing import Any

from treadle.core.identifiers import id_of_hex
from treadle.core.reported_runs import ReportedRuns
from treadle.core.run_record import RunRecord
from treadle.core.secrets import find
from treadle.core.texts import read_texts
from treadle.core.uploads import Uploads
from treadle.integrations.mlflow_tracking.points import Points
from treadle.integrations.mlflow_tracking.problem import absent, invalid
from treadle.integrations.mlflow_tracking.run_view import EXPERIMENT, RunView
from treadle.record.record import Record

_TEXTS_KEPT = 20_000  # objects with texts that stay in memory
_EXPERIMENTS_AT_ONCE = 400
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
ROOT = "mlflow-artifacts:/"


class Tracker:
    """One for each server. ``lock`` is held while something is looked up and changed."""

    def __init__(self, record: Record, silence: float) -> None:
        self.record = record
        self.keys = record.workspace.keys
        self.reported = ReportedRuns(record.runs, silence)
        self.points = Points(record.workspace.journal)
        self.uploads = Uploads(record.store, record.workspace.state)
        self.lock = threading.RLock()
        self._texts: dict[str, dict[str, str]] = {}

    def run(self, identifier: str, *, active: bool = False) -> RunView:
        """A run by MLflow's id; ``active``: one that was not deleted, and of which something is heard now."""
        found = None
        name = id_of_hex("run", identifier)
        if name is not None:
            found = self.record.runs.get(name)
        if found is None or EXPERIMENT not in found.facts.get("tags", {}):
            raise absent(f"Run with id={identifier[:100]} not found")
        view = RunView(self, found)
        if active and view.deleted:
            raise invalid(f"The run {identifier} must be in the 'active' state. Current state is deleted.")
        if active:
            heard = self.reported.heard(found)
            view = view if heard is found else RunView(self, heard)
        return view

    def texts(self, digest: str | None) -> dict[str, str]:
        """Texts of a run by their places; nothing where they were erased."""
        if digest is None or not self.record.store.has_object(digest):
            return {}
        if digest not in self._texts:
            if len(self._texts) >= _TEXTS_KEPT:
                self._texts.clear()
            self._texts[digest] = read_texts(self.record.store, digest)
        return self._texts[digest]

    def runs(self, experiments: Collection[str]) -> list[RunRecord]:
        """Every run of some experiments, the latest first."""
        known = sorted(each for each in set(experiments) if each.isdecimal())[:_EXPERIMENTS_AT_ONCE]
        places = [f'"{EXPERIMENT}":{each}{end}' for each in known for end in (",", "}")]
        either = " OR ".join(["instr(facts, ?) > 0"] * len(places)) or "1 = 0"
        rows = self.record.ledger.database.query(f"SELECT * FROM runs WHERE {either} ORDER BY seq DESC", places)
        return [RunRecord.of(row) for row in rows]

    def experiment(self, identifier: str, *, active: bool = False) -> dict[str, Any]:
        """An experiment's card."""
        found = self.record.cards.get("experiment", identifier) if identifier.isdecimal() else None
        if found is None and identifier == "0":
            present = now()
            found = {"name": "Default", "created": present, "updated": present, "deleted": False, "tags": {}}
            self.record.cards.put("experiment", "0", found)
        if found is None:
            raise absent(f"No Experiment with id={identifier[:100]} exists")
        found = {"name": f"erased {identifier}", "created": 0, "updated": 0, "deleted": False, "tags": {}} | found
        if active and found["deleted"]:
            raise invalid(f"The experiment {identifier} must be in the 'active' state. Current state is deleted.")
        return found

    def place_of(self, experiment: str) -> str:
        """Where an experiment's artifacts are said to lie."""
        return str(self.experiment(experiment).get("location") or ROOT + experiment)

    def place_of_run(self, experiment: str, run: str) -> str:
        """Where a run's artifacts are said to lie."""
        return f"{self.place_of(experiment)}/{run}/artifacts"

    def place_of_model(self, experiment: str, model: str) -> str:
        """Where a logged model's files are said to lie."""
        return f"{self.place_of(experiment)}/models/{model}/artifacts"


def now() -> int:
    """The present in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def plain_name(text: str, default: str) -> str:
    """A name that may stand in the ledger: the text itself where it is one plain word."""
    return text if _PLAIN.match(text) and not find(text) else default


def listed(values: dict[str, str]) -> list[dict[str, str]]:
    """Tags or settings as MLflow's JSON has them."""
    return [{"key": name, "value": value} for name, value in values.items()]
