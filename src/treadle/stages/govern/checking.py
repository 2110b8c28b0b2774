"""What is looked at before anything runs: that the gates can judge what will be there, or a training is for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError, nearest
from treadle.core.place import about
from treadle.core.plugins import load
from treadle.core.settings import check
from treadle.evals.metric import load_metric
from treadle.evals.task import Task
from treadle.stages.govern import GovernSettings
from treadle.stages.govern.checks import CHAMPION, personal_data, quality


def check_gates(settings: GovernSettings, task: Task, compared: Sequence[str], folder: Path) -> None:
    """``UserError`` for a gate that is not known or not as it has to be. ``compared``: what is evaluated beside the
    model."""
    for number, gate in enumerate(settings.gates):
        name, given = next(iter(gate.items()))
        where = f"govern.gates[{number}]"
        with about(where, name):
            found, called = load("treadle.checks", name, folder).value, f"{where} ({name})"
            check(found, given, where=called, provided=("evidence",))
            if found is quality:
                _check_quality(given, called, task, compared, folder)
            elif found is personal_data:
                _check_kinds(given.get("kinds") or (), called)


def _check_quality(given: Mapping[str, Any], where: str, task: Task, compared: Sequence[str], folder: Path) -> None:
    others = [given[key] for key in ("beats", "not_worse_than") if given.get(key) is not None]
    if len(others) != 1:
        raise UserError(f"{where}: give exactly one of beats and not_worse_than")
    task.require([load_metric(given["metric"], folder)])
    known = [CHAMPION] if given.get("on") == "cases" else list(compared)
    if others[0] not in known:
        on = " on cases" if given.get("on") == "cases" else ""
        raise UserError(f"{where}: nothing called {others[0]!r} is evaluated{on};{nearest(others[0], known)}")


def _check_kinds(kinds: Sequence[str], where: str) -> None:
    from treadle.text.personal_data import KINDS

    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"{where}: there is no kind of personal data called {kind!r};{nearest(kind, KINDS)}")
