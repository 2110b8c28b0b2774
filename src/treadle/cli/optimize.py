"""``treadle optimize``."""

from __future__ import annotations

import click

from treadle.cli.live import watching
from treadle.cli.number import Number
from treadle.cli.output import emit, here, json_option, say, say_who_is_waited_for, table
from treadle.cycle import STAGES
from treadle.optimizing import LIMIT, Optimizing, optimize_ref
from treadle.project import open_project


@click.command()
@click.argument("ref")
@click.option("--budget", metavar="SECONDS", type=Number(0), help="Begin no further way after that time.")
@click.option(
    "--loss",
    "limit",
    metavar="LIMIT",
    type=Number(0, 1),
    default=LIMIT,
    show_default=True,
    help="The most that may be lost: a share of perplexity, or points of accuracy.",
)
@click.option("--try", "ways", metavar="NAME", multiple=True, help="This way only, or module:Class.  [default: all]")
@click.option("--items", metavar="N", type=click.IntRange(8), help="Test items to judge on.")
@json_option
def optimize(
    ref: str, budget: float | None, limit: float, ways: tuple[str, ...], items: int | None, as_json: bool
) -> None:
    """Measure ways of making a model smaller or faster: size, speed, and what each loses, with a 95 % interval.

    REF is model@v1, @champion or b3:... Each way is a run, compared item by item with the unchanged model on the
    project's test split. What loses more than LIMIT is refused; nothing is released. The picture is one file that loads
    nothing.

    \b
    Example:
      treadle optimize @champion
      treadle optimize model@v2 --try gguf-q8_0 --try gguf-q4_0 --loss 0.02
    """
    with open_project(here()) as project, project.record.workspace.exclusive(say_who_is_waited_for):
        if as_json:
            emit(optimize_ref(project, ref, limit=limit, budget=budget, ways=ways, items=items).public())
            return
        with watching(STAGES, quiet=False) as listener:
            found = optimize_ref(project, ref, limit=limit, budget=budget, ways=ways, items=items, listener=listener)
        for line in _lines(found):
            say(line)
        say(found.report.shown("frontier.html"))


def _lines(found: Optimizing) -> list[str]:
    drawn = found.drawn
    lines = [f"{drawn['ref']} on {drawn['items']:,} items of {drawn['dataset'][:11]}"]
    lines += table(found.lines(), right=(1, 2, 3, 4))
    refused = [point["name"] for point in drawn["points"] if point["verdict"] == "refused"]
    if refused:
        lines.append(f"refused, for losing more than {drawn['limit']:.2%}: {', '.join(refused)}")
    lines += [f"{name} is left out: {reason}" for name, reason in drawn["left_out"].items()]
    first = drawn["points"][0]["speed"]
    best = [each for each in drawn["points"] if each["name"] in drawn["frontier"] and each["speed"] > first]
    if best:
        fastest = max(best, key=lambda point: float(point["speed"]))["name"]
        lines.append(f"to release the fastest of the frontier: deploy: {{optimization: {{way: {fastest}}}}}")
    return lines
