"""``treadle runs``."""

from __future__ import annotations

import click

from treadle.cli.output import emit, here, json_option, say, short, table
from treadle.core.errors import UserError
from treadle.project import open_project


@click.command()
@click.argument("run", required=False)
@click.option("--step", help="Only runs of this step, such as develop.train.")
@click.option("--status", type=click.Choice(["running", "done", "failed", "crashed"]), help="Only runs in this state.")
@click.option("--limit", type=click.IntRange(0), default=0, help="At most so many, latest first (0: all).")
@json_option
def runs(run: str | None, step: str | None, status: str | None, limit: int, as_json: bool) -> None:
    """List runs, latest first, or show one: parameters, metrics over time, inputs, outputs, commit, environment.

    \b
    Example:
      treadle runs --step develop.train
      treadle runs run-01K...
    """
    with open_project(here()) as project:
        record = project.record
        if run is not None:
            found = record.runs.get(run)
            if found is None:
                raise UserError(f"there is no run {run!r}; treadle runs lists them")
            points = [row for row in record.workspace.journal.read("metrics") if row["id"] == run]
            shown = {**found.public(), **found.facts, "points": [{"step": p["step"], **p["values"]} for p in points]}
            if as_json:
                emit(shown)
                return
            for name, value in shown.items():
                if name == "points":
                    for point in value:
                        say(
                            "  " + "  ".join(f"{key}={number:g}" for key, number in point.items() if number is not None)
                        )
                else:
                    say(f"{name:<12} {value}")
            return
        found_runs = record.runs.find(step=step, status=status, limit=limit or None)
    if as_json:
        emit([each.public() for each in found_runs])
        return
    rows = [["run", "step", "status", "seconds", "metrics", "outputs"]]
    for each in found_runs:
        metrics = " ".join(f"{name}={value:.4g}" for name, value in list(each.metrics.items())[:4])
        outputs = " ".join(f"{name}={short(digest)}" for name, digest in each.outputs.items())
        seconds = "-" if each.seconds is None else f"{each.seconds:.1f}"
        rows.append([each.id, each.step, each.status, seconds, metrics, outputs])
    for line in table(rows, right=(3,)):
        say(line)
