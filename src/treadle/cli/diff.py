"""``treadle diff``."""

from __future__ import annotations

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.project import open_project
from treadle.stages.track.difference import difference


@click.command()
@click.argument("a")
@click.argument("b")
@json_option
def diff(a: str, b: str, as_json: bool) -> None:
    """What changed between two versions, artifacts or runs: settings, documents, metrics, environment.

    \b
    Example:
      treadle diff model@v1 model@v2
    """
    with open_project(here()) as project:
        found = difference(project.record, a, b)
    if as_json:
        emit(found.public())
        return
    for title, part in (("settings", found.settings), ("metrics", found.metrics), ("environment", found.environment)):
        for name, (before, after) in part.items():
            say(f"{title:<12} {name}: {before} -> {after}")
    if found.documents:
        counts = found.documents
        say(
            f"documents    {counts['a']:,} -> {counts['b']:,}: {counts['added']:,} added, {counts['removed']:,} removed"
        )
        for sign, names in (("+", found.added), ("-", found.removed)):
            for name in names:
                say(f"  {sign} {name}")
    if not (found.settings or found.metrics or found.environment or found.added or found.removed):
        say("nothing changed")
