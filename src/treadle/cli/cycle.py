"""``treadle plan`` and ``treadle run``."""

from __future__ import annotations

from typing import Any

import click

from treadle.cli.live import watching
from treadle.cli.output import emit, here, json_option, say, set_option, short, table
from treadle.core.errors import TreadleError, UserError
from treadle.cycle import STAGES, Turn, begin
from treadle.grid import Grid, Overrides, combinations, run_grid
from treadle.project import Project, open_project
from treadle.turning import begin_next, go, turn

UNTIL = click.option("--until", metavar="STAGE", help="Stop after this stage: " + ", ".join(STAGES) + ".")


@click.command()
@UNTIL
@set_option
@json_option
def plan(until: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say which steps would run, and why; nothing is run.

    \b
    Example:
      treadle plan --set develop.learning_rate=2e-4
    """
    with open_project(here(), overrides) as project:
        with watching(STAGES, quiet=as_json) as listener:
            this = turn(project, until=until, listener=listener, planning=True)
        if as_json:
            emit(this.public())
            return
        waiting = [result for _, results in this.driver.stages for result in results if result.status == "skipped"]
        one = len(waiting) == 1
        words = f"{len(waiting)} step{'' if one else 's'} would run"
        say(words if waiting else "nothing to do: every step is remembered")


@click.command()
@UNTIL
@click.option("--next", "following", is_flag=True, help="Begin the next turn, with the corrections so far.")
@set_option
@json_option
def run(until: str | None, following: bool, overrides: tuple[str, ...], as_json: bool) -> int:
    """Run the cycle, or as far as --until; steps whose inputs and settings are unchanged are remembered.

    Users' corrections are taken in when the next turn begins: by itself (treadle watch), or with --next.

    Several values where a setting takes one are a grid: each combination runs as far as develop, and they are compared.
    A grid promotes nothing; run again with the values you choose.

    \b
    Example:
      treadle run
      treadle run --until develop --set develop.learning_rate=2e-4
      treadle run --set develop.learning_rate=1e-4,2e-4
      treadle run --next

    Exits 1 when a gate refuses the version; the champion stays in force, also where it is the one that is refused.
    """
    grid = combinations(here(), overrides)
    if len(grid) > 1:
        if following:
            raise UserError("--next begins a turn, and a grid is none; run the grid first, then --next with its best")
        return _grid(grid, until, as_json=as_json)
    overrides = grid[0]
    with open_project(here(), overrides) as project:
        this = run_turn(project, until, as_json=as_json, following=following)
        if as_json:
            emit(this.public())
        return 0 if this.ok else 1


def _grid(grid: list[Overrides], until: str | None, *, as_json: bool) -> int:
    def waiting(holder: str) -> None:
        if not as_json:
            say(f"waiting for {holder}, which has this project")

    found = run_grid(here(), grid, until, watching=lambda: watching(STAGES, quiet=as_json), waiting=waiting)
    if as_json:
        emit(found.public())
        return 0 if found.ok else 1
    for line in _compared(found):
        say(line)
    return 0 if found.ok else 1


def _compared(found: Grid) -> list[str]:
    """A table with intervals, the best by the first metric marked."""
    names = list(found.runs[0].settings)
    metrics = list(dict.fromkeys(name for run in found.runs for name in run.scores))
    metrics.sort(key=lambda name: name != found.by)
    rows = [[*names, *(f"{metric} [95 % interval]" for metric in metrics), "model", ""]]
    for run in found.runs:
        scores = [_interval(run.scores.get(metric)) for metric in metrics]
        mark = "failed" if run.error else "best" if run is found.best else ""
        rows.append([*run.settings.values(), *scores, short(run.model), mark])
    lines = table(rows)
    best = found.best
    if best is not None:
        rest = found.undecided()
        others = f"{rest} other{'' if rest == 1 else 's'}"
        unsure = f"; not told apart from {others}, item by item and all comparisons together" if rest else ""
        chosen = " ".join(f"--set {name}={value}" for name, value in best.settings.items())
        lines += [f"best by {found.by}{unsure}", f"nothing was promoted; to go on with it: treadle run {chosen}"]
    return lines


def _interval(score: dict[str, Any] | None) -> str:
    return f"{score['value']:.4g} [{score['low']:.4g}, {score['high']:.4g}]" if score else "-"


def run_turn(project: Project, until: str | None, *, as_json: bool, following: bool = False) -> Turn:
    """A turn under the project's lock, shown as it goes. With ``--json``, a failure still tells how far it came."""

    def waiting(holder: str) -> None:
        if not as_json:
            say(f"waiting for {holder}, which has this project")

    with project.record.workspace.exclusive(waiting), watching(STAGES, quiet=as_json) as listener:
        if following:
            begin_next(project, ("asked for",), listener)
        this = begin(project, listener=listener)
        try:
            go(this, until)
        except TreadleError as error:
            error.told = {**this.public(), "ok": False}
            raise
    return this
