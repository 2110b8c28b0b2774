"""The card of a logged model, and the artifact that holds its files."""

from __future__ import annotations

from typing import Any

from treadle.core.identifiers import hex_of
from treadle.integrations.mlflow_tracking.problem import absent
from treadle.integrations.mlflow_tracking.run_view import BEGAN, ENDED, EXPERIMENT
from treadle.integrations.mlflow_tracking.tracker import Tracker, now, plain_name
from treadle.lm.model import Model

KIND = "logged_model"


def read(tracker: Tracker, model: str) -> dict[str, Any]:
    """The card of one that was not deleted."""
    content = tracker.record.cards.get(KIND, model)
    if not content or content.get("deleted"):
        raise absent(f"Logged model with ID '{model[:100]}' not found.")
    return content


def keep(tracker: Tracker, model: str, digest: str) -> None:
    """Its files are this artifact from now on: an output of the run it was logged in, or of one made for it."""
    content = read(tracker, model)
    run = content.get("source_run") or content.get("run")
    if not run:
        present = now()
        tags = {EXPERIMENT: int(content["experiment"]), BEGAN: present, ENDED: present}
        begun = tracker.reported.begin("log-model", "log-model", tags=tags, user=None, commit=None)
        tracker.reported.finish(begun, "done", 0.0, {})
        run = content["run"] = hex_of(begun.id)
    view = tracker.run(run)
    name = plain_name(content["name"], "model")
    if view.run.outputs.get(name, content.get("artifact")) != content.get("artifact"):
        name = f"{name}-{model[2:10]}"
    tracker.reported.tell(view.run, outputs={name: Model(digest, tracker.record.store)})
    tracker.record.cards.put(KIND, model, content | {"artifact": digest, "updated": now()})
