"""A grid: the cycle as far as `develop` once for each combination of settings, and the results side by side.

``--set develop.learning_rate=1e-4,2e-4`` names two values where the setting takes one. What is one valid value of a
setting stays one, commas and all, so lists and texts mean what they always did. A grid compares; it registers no
version unless asked to go as far as `track`, and it never deploys, judges or promotes anything: running the cycle with
the settings of the best does, and finds its steps done.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.core.config import load, read_yaml
from treadle.core.driver import Listener
from treadle.core.errors import TreadleError, UserError
from treadle.cycle import STAGES, begin
from treadle.evals.metric import Metric, load_metric
from treadle.evals.task import load_task
from treadle.project import FILE, File, find_folder, open_project

if TYPE_CHECKING:
    from treadle.evals.intervals import Comparison
    from treadle.evals.results import Evaluation

MOST = 64  # combinations
LAST = ("develop", "track")  # how far a grid may go

Overrides = tuple[str, ...]


@dataclass(frozen=True)
class GridRun:
    """One combination: its settings, the model and its scores with intervals; ``error`` where it failed.
    ``against_best``: this one minus the best by the metric that decides, paired on the test items that both have."""

    settings: dict[str, str]
    model: str | None = None
    run: str | None = None
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str | None = None
    against_best: Comparison | None = None

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "settings": self.settings,
            "model": self.model,
            "run": self.run,
            "scores": self.scores,
            "error": self.error,
            "against_best": self.against_best.to_json() if self.against_best else None,
        }


@dataclass(frozen=True)
class Grid:
    """All of them; ``by`` is the metric that decides, the first of ``develop.evaluate.metrics``."""

    runs: tuple[GridRun, ...]
    by: str

    @property
    def ok(self) -> bool:
        """None failed."""
        return all(run.error is None for run in self.runs)

    @property
    def best(self) -> GridRun | None:
        """The one with the best value; None where none was evaluated."""
        done = [run for run in self.runs if self.by in run.scores]
        return max(done, key=self._goodness, default=None)

    def _goodness(self, run: GridRun) -> float:
        score = run.scores[self.by]
        return float(score["value"]) * (1 if score["higher_is_better"] else -1)

    def undecided(self) -> int:
        """How many others are not told apart from the best, all comparisons together."""
        best = self.best
        others = [run for run in self.runs if run is not best and self.by in run.scores]
        return sum(run.against_best is None or not run.against_best.decided for run in others)

    def public(self) -> dict[str, Any]:
        """The shape that ``treadle run --json`` promises for a grid."""
        best = self.best
        return {
            "ok": self.ok,
            "by": self.by,
            "best": self.runs.index(best) if best else None,
            "undecided": self.undecided(),
            "grid": [run.public() for run in self.runs],
        }


def combinations(start: Path, overrides: Overrides) -> list[Overrides]:
    """Every combination that the overrides name; one where each names a single value.

    ``UserError`` where a value is none that the setting takes, or there are more than ``MOST``.
    """
    folder = find_folder(start.resolve())
    single = tuple(each for each in overrides if not _several(each))
    choices = [_choices(folder, each, single) if _several(each) else [each] for each in overrides]
    found = list(itertools.islice(itertools.product(*choices), MOST + 1))
    if len(found) > MOST:
        raise UserError(f"--set names more than {MOST} combinations; name fewer values")
    return found


def _several(override: str) -> bool:
    """Whether it may name several values: a text with commas in it."""
    key, _, text = override.partition("=")
    return "," in text and isinstance(read_yaml(text, f"--set {key}")[0], str) and text.strip()[0] not in "'\""


def _choices(folder: Path, override: str, others: Overrides) -> list[str]:
    key, _, text = override.partition("=")
    try:
        load(folder / FILE, File, (*others, override))
    except UserError:
        each = [f"{key}={part.strip()}" for part in text.split(",")]
        for one in each:
            load(folder / FILE, File, (*others, one))
        return list(dict.fromkeys(each))
    return [override]


def run_grid(
    start: Path,
    grid: list[Overrides],
    until: str | None,
    *,
    watching: Callable[[], AbstractContextManager[Listener]],
    waiting: Callable[[str], object],
) -> Grid:
    """Run each combination, one after the other; one that fails is told and the others go on."""
    until = until or LAST[0]
    if until not in LAST:
        known = "it goes as far as develop or track" if until in STAGES else f"there is no stage {until!r}"
        raise UserError(f"--until {until}: a grid compares models and promotes none; {known}")
    changing = [place for place in range(len(grid[0])) if len({each[place] for each in grid}) > 1]
    runs, by = [], ""
    judged: dict[int, Evaluation] = {}
    metric: Metric | None = None
    seed = 0
    for overrides in grid:
        settings = dict(overrides[place].split("=", 1) for place in changing)
        with open_project(start, overrides) as project, project.record.workspace.exclusive(waiting):
            file = project.file
            if metric is None:
                named = (file.develop.evaluate.metrics or load_task(file.task, project.folder).metrics)[0]
                metric, seed = load_metric(named, project.folder), file.seed
                by = metric.name
            with watching() as listener:
                listener.say("grid: " + ", ".join(f"{name}={value}" for name, value in settings.items()))
                this = begin(project, listener=listener)
                try:
                    this.go(until)
                except TreadleError as error:
                    listener.say(f"failed: {error}")
                    runs.append(GridRun(settings, error=str(error)))
                    continue
            model = this.developed.model
            made = project.record.runs.producer(model.digest)
            report = this.developed.evaluations["model"]
            judged[len(runs)] = report.items()
            runs.append(GridRun(settings, model.digest, made.id if made else None, report.scores()))
    found = Grid(tuple(runs), by)
    return compared(found, judged, metric, seed) if metric is not None else found


def compared(grid: Grid, judged: Mapping[int, Evaluation], metric: Metric, seed: int) -> Grid:
    """The grid with each run's comparison with the best; ``judged`` are the runs' items, by their place. Intervals are
    widened so that all of them hold together (Bonferroni)."""
    best = grid.best
    if best is None:
        return grid
    from treadle.evals.intervals import LEVEL

    first = grid.runs.index(best)
    level = 1 - (1 - LEVEL) / max(1, len(judged) - 1)

    def against(place: int, run: GridRun) -> GridRun:
        if place == first or place not in judged:
            return run
        shared = {item.id for item in judged[place].items} & {item.id for item in judged[first].items}
        if len(shared) < 2:  # another split
            return run
        return replace(run, against_best=judged[place].against(judged[first], metric, seed=seed, level=level))

    return replace(grid, runs=tuple(against(place, run) for place, run in enumerate(grid.runs)))
