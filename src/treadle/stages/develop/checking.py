"""What is looked at before anything runs: that the trainings which the file asks for can be, where it wants them."""

from __future__ import annotations

from pathlib import Path

from treadle.core.errors import UserError
from treadle.core.place import about
from treadle.core.plugins import load
from treadle.evals.metric import load_metric
from treadle.evals.task import FITS, Fit, Task
from treadle.lm.fitting import adapts, carries, judged_by, whole
from treadle.lm.launcher import Launcher
from treadle.stages.develop.resuming import trainer_for
from treadle.stages.develop.settings import DevelopSettings

_PAIRS = ("accuracy", "margin")  # what learning from pairs of answers can be judged by


def check_trainings(settings: DevelopSettings, task: Task, folder: Path) -> None:
    """``UserError`` for a place to train that is not known or whose package is missing, a way to train that is not for
    the task, and one that can neither run there, train adapters nor be judged under way as it is asked."""
    place = trainer_for(settings.on)
    trains, who = task.fit, f"task {task.name}"
    if settings.fit is not None:
        with about("develop.fit"):
            trains, who = load(FITS, settings.fit, folder).value, settings.fit
        tasks = getattr(trains, "tasks", None)
        if tasks is not None and task.name not in tasks:
            raise UserError(f"develop.fit: {who} is for task {' or '.join(tasks)}, not for {task.name}; leave it out")
    if settings.evaluate.metrics:
        with about("develop.evaluate.metrics"):
            task.require([load_metric(name, folder) for name in settings.evaluate.metrics])
    _check_looks(settings, trains)
    if settings.method == "lora":
        _check_adapters(settings, trains, who)
    if isinstance(place, Launcher) and place.strategy != "ddp":
        _check_cut(settings, trains, who)
    if trains is None or carries(trains):
        return
    if isinstance(place, Launcher):
        raise UserError(f"develop.on: {who} trains in one process; leave out `on`")
    if settings.looks is not None:
        raise UserError(f"develop.keep_best: {who} cannot be judged under way; leave out keep_best and stop_early")


def _check_looks(settings: DevelopSettings, trains: Fit | None) -> None:
    """``UserError`` for a way to judge under way that the training does not know."""
    known: tuple[str, ...] | None = () if trains is None else judged_by(trains)
    if settings.prefer is not None and settings.prefer.instead:
        known = _PAIRS
    if settings.looks is not None and known is not None and settings.looks["metric"] not in ("loss", *known):
        of = ", ".join(("loss", *known))
        raise UserError(
            f"develop.keep_best: {settings.looks['metric']!r} is not of this training; expected one of {of}"
        )


def _check_adapters(settings: DevelopSettings, trains: Fit | None, who: str) -> None:
    """``UserError`` where `method: lora` would change nothing, or could not be."""
    # Pairs of answers are learned by adapters, whoever trained before.
    if trains is not None and not adapts(trains) and settings.prefer is None:
        raise UserError(f"develop.method: {who} trains all weights and no adapters; leave out `method: lora`")
    if settings.distill is not None and settings.distill.teacher is not None:
        raise UserError("develop.method: with distill.teacher a student alone is trained, all of it; leave out lora")


def _check_cut(settings: DevelopSettings, trains: Fit | None, who: str) -> None:
    """``UserError`` where the strategy of ``on`` cuts the model, and a training has to have all of it."""
    needs = None
    if settings.method == "lora":
        needs = "develop.method: lora"
    elif settings.prefer is not None:
        needs = "develop.prefer: learning from pairs of answers"
    elif trains is not None and whole(trains):
        needs = f"develop.on: {who}"
    if needs is not None:
        raise UserError(f"{needs} needs a strategy that keeps the model whole; take ddp in develop.on")
