"""A run of the record as MLflow's clients see it, texts put back in their places."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

from treadle.core.identifiers import hex_of
from treadle.core.keys import Keys
from treadle.core.run_record import RunRecord
from treadle.core.secrets import is_secret
from treadle.core.texts import keyed_text
from treadle.integrations.mlflow_tracking.fields import OURS
from treadle.integrations.mlflow_tracking.points import Points
from treadle.record.record import Record

EXPERIMENT, BEGAN, ENDED = OURS + "experiment", OURS + "began", OURS + "ended"
DELETED, KILLED, USER = OURS + "deleted", OURS + "killed", OURS + "user"
RUN_NAME, TAGGED_USER = "mlflow.runName", "mlflow.user"
FILES = "artifacts"  # the output that holds what was uploaded
ERASED = "[erased]"
_DIGITS = 17


class Around(Protocol):
    """What a view asks of the server that it belongs to."""

    record: Record
    keys: Keys
    points: Points

    def texts(self, digest: str | None) -> dict[str, str]:
        """Texts of a run by their places."""
        ...

    def place_of_run(self, experiment: str, run: str) -> str:
        """Where a run's artifacts are said to lie."""
        ...


class RunView:
    """Reads of a run only what is asked for: most of a long list never is."""

    def __init__(self, tracker: Around, run: RunRecord) -> None:
        self.run = run
        self.id = hex_of(run.id)
        self._tracker = tracker

    @cached_property
    def marks(self) -> dict[str, Any]:
        """Tags as the ledger has them, the server's own among them."""
        return {name: value for name, value in self.run.facts.get("tags", {}).items() if value is not None}

    @cached_property
    def _texts(self) -> dict[str, str]:
        facts = self.run.facts
        texts: dict[str, str] = {}
        for digest in (facts.get("texts"), *facts.get("more_texts", ())):
            texts |= self._tracker.texts(digest)
        return texts

    def _said(self, place: str, value: Any) -> Any:
        """The text behind a keyed digest; not an earlier one, where the one that counts was erased."""
        if not isinstance(value, str) or not value.startswith("k3:"):
            return value
        text = self._texts.get(place)
        return text if text is not None and keyed_text(self._tracker.keys, text) == value else ERASED

    @property
    def experiment(self) -> str:
        """The id of its experiment."""
        return str(self.marks[EXPERIMENT])

    @property
    def deleted(self) -> bool:
        """Whether it was put away; it can be restored."""
        return DELETED in self.marks

    @property
    def status(self) -> str:
        """MLflow's word for it. What fell silent has failed."""
        if self.run.status == "failed":
            return "KILLED" if self.marks.get(KILLED) else "FAILED"
        return {"done": "FINISHED", "crashed": "FAILED"}.get(self.run.status, "RUNNING")

    @cached_property
    def tags(self) -> dict[str, str]:
        """The client's tags."""
        return {name: self.tag(name) or "" for name in self.marks if not name.startswith(OURS)}

    def tag(self, name: str) -> str | None:
        """One tag; None where there is none."""
        return str(self._said(f"tags.{name}", self.marks[name])) if name in self.marks else None

    def tag_is(self, name: str, text: str) -> bool:
        """Whether a tag has this value, without reading texts."""
        return name in self.marks and self.marks[name] in (keyed_text(self._tracker.keys, text), text)

    @cached_property
    def params(self) -> dict[str, str]:
        """Settings as they were logged."""
        return {name: spelled(self._said(f"params.{name}", value)) for name, value in self.run.parameters.items()}

    def metrics(self) -> dict[str, float]:
        """The latest of each."""
        return {name: point.value for name, point in self._tracker.points.latest(self.run.id).items()}

    @cached_property
    def info(self) -> dict[str, Any]:
        """Everything about it but its data."""
        began = self.marks.get(BEGAN)
        told: dict[str, Any] = {
            "run_id": self.id,
            "run_uuid": self.id,
            "run_name": self.tag(RUN_NAME) or self.run.facts.get("name") or "",
            "experiment_id": self.experiment,
            "user_id": self.tag(TAGGED_USER) or self.tag(USER) or "",
            "status": self.status,
            "start_time": began,
            "artifact_uri": self._tracker.place_of_run(self.experiment, self.id),
            "lifecycle_stage": "deleted" if self.deleted else "active",
        }
        if self.run.status != "running" and ENDED in self.marks:
            told["end_time"] = self.marks[ENDED]
        return told

    def public(self) -> dict[str, Any]:
        """As MLflow's JSON has it."""
        latest = self._tracker.points.latest(self.run.id)
        links = self._tracker.record.cards.get("run_links", self.id) or {}
        return {
            "info": self.info,
            "data": {
                "metrics": [latest[name].public() for name in sorted(latest)],
                "params": [{"key": name, "value": value} for name, value in sorted(self.params.items())],
                "tags": [{"key": name, "value": value} for name, value in sorted(self.tags.items())],
            },
            "inputs": {"dataset_inputs": links.get("datasets", []), "model_inputs": links.get("models_in", [])},
            "outputs": {"model_outputs": links.get("models_out", [])},
        }


def kept(params: Mapping[str, str]) -> dict[str, Any]:
    """Settings, which come as texts, as the record has them: numbers as numbers, where none is spelled otherwise."""
    return {name: _kept(name, text) for name, text in params.items()}


def _kept(name: str, text: str) -> Any:
    if text in ("None", "True", "False"):
        return {"None": None, "True": True, "False": False}[text]
    if len(text) > _DIGITS or is_secret(name, text):
        return text
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if math.isfinite(number) and spelled(number) == text:
            return number
    return text


def spelled(value: Any) -> str:
    """The text that was logged."""
    return value if isinstance(value, str) else str(value)
