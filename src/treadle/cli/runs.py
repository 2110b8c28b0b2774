"""``treadle runs``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from treadle.cli.output import emit, here, json_option, say, short, table
from treadle.core.errors import TreadleError, UserError
from treadle.core.runs import RunRecord
from treadle.record.record import Record
from treadle.record.run_filter import parse, parse_field
from treadle.record.run_sql import Search, search
from treadle.record.run_view import whole
from treadle.tracking import annotate, open_record

STATUSES = ["running", "done", "failed", "crashed"]


@click.command()
@click.argument("run", required=False)
@click.option("--where", metavar="FILTER", help="Only runs for which this holds.")
@click.option("--step", help="Only runs of this step (develop.train) or stage (develop.).")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs in this state.")
@click.option("--sort", metavar="FIELD", help="By this, the smallest first; else the latest first.")
@click.option("--desc", is_flag=True, help="The other way round.")
@click.option("--limit", type=click.IntRange(0), default=0, help="At most so many (0: all).")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with their curves.")
@click.option("--note", metavar="TEXT", help="Add a remark to RUN.")
@click.option("--tag", "tags", metavar="NAME=VALUE", multiple=True, help="Set a tag of RUN; may be given again.")
@json_option
def runs(
    run: str | None,
    where: str | None,
    step: str | None,
    status: str | None,
    sort: str | None,
    desc: bool,
    limit: int,
    plot: Path | None,
    note: str | None,
    tags: tuple[str, ...],
    as_json: bool,
) -> None:
    """List runs, latest first, or show one: settings, metrics over time, tags, notes, source, surroundings.

    A FILTER compares fields with values, joined by and, or, not: step, name, kind, status, started, seconds, seed,
    commit, or params., metrics., tags., inputs., outputs. and a name; with = != < <= > >= in and ~ (has this text).

    \b
    Example:
      treadle runs --step develop.train
      treadle runs --where "metrics.loss < 2 and params.lr > 1e-4" --sort metrics.loss --plot out.html
      treadle runs run-01K...
      treadle runs run-01K... --tag kept=true --note "the schedule was the old one"
    """
    if run is None and (note is not None or tags):
        raise UserError("--note and --tag are about one run; name it: treadle runs RUN --note TEXT")
    wanted = Search(
        parse(where) if where is not None else None,
        step,
        status,
        parse_field(sort) if sort is not None else None,
        desc,
        limit or None,
    )
    with open_record(here()) as record:
        _sweep(record)
        if run is not None:
            if note is not None or tags:
                annotate(record, run, note=note, tags=_tags(tags))
            _show(record, run, as_json=as_json)
            return
        found = search(record.runs, wanted)
        if plot is not None:
            _plot(record, found, plot, where or "All runs")
    if as_json:
        emit([each.public() for each in found])
        return
    _list(found)
    if plot is not None:
        say(f"wrote {plot}")


def _tags(given: tuple[str, ...]) -> dict[str, Any]:
    """Tags as they are typed: a number, true, false, or a text."""
    from treadle.core.config import read_yaml

    found: dict[str, Any] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals:
            raise UserError(f"--tag {each[:80]!r}: expected NAME=VALUE, such as kept=true")
        value = read_yaml(text, f"--tag {name}")[0]
        found[name] = value if isinstance(value, bool | int | float) else text
    return found


def _sweep(record: Record) -> None:
    """Runs whose process is gone are shown as crashed; where nothing can be written they stay as they are."""
    try:
        record.runs.sweep()
    except (OSError, TreadleError):
        return


def _plot(record: Record, found: list[RunRecord], path: Path, title: str) -> None:
    from treadle.console.run_plot import page

    if not found:
        raise UserError("no run matches, so there is nothing to plot")
    try:
        path.write_text(page(record, found, title), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def _list(found: list[RunRecord]) -> None:
    rows = [["run", "step", "status", "seconds", "metrics", "outputs"]]
    for each in found:
        metrics = " ".join(f"{name}={value:.4g}" for name, value in list(each.metrics.items())[:4])
        outputs = " ".join(f"{name}={short(digest)}" for name, digest in each.outputs.items())
        seconds = "-" if each.seconds is None else f"{each.seconds:.1f}"
        rows.append([each.id, each.step, each.status, seconds, metrics, outputs])
    for line in table(rows, right=(3,)):
        say(line)


def _show(record: Record, identifier: str, *, as_json: bool) -> None:
    found = record.runs.get(identifier)
    if found is None:
        raise UserError(f"there is no run {identifier!r}; treadle runs lists them")
    shown = whole(record, found)
    if as_json:
        emit(shown)
        return
    points, diff = shown.pop("points"), shown.pop("diff")
    for name, value in shown.items():
        if value not in (None, {}, []):
            say(f"{name:<13} {value}")
    for line in _series(points):
        say(f"  {line}")
    if diff:
        say("diff")
        say(diff.rstrip())


def _series(points: list[dict[str, Any]]) -> list[str]:
    """Each metric over time in one line."""
    series: dict[str, list[float]] = {}
    for point in points:
        for name, value in point.items():
            if name != "step":
                series.setdefault(name, []).append(float(value))
    rows = [["over time", "points", "first", "last", "least", "most"]]
    for name, values in series.items():
        shown = (values[0], values[-1], min(values), max(values))
        rows.append([name, str(len(values)), *(f"{value:.4g}" for value in shown)])
    return table(rows, right=(1, 2, 3, 4, 5)) if series else []
