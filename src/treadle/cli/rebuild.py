"""``treadle rebuild``."""

from __future__ import annotations

import click

from treadle.cli.live import watching
from treadle.cli.output import emit, here, json_option, say, table
from treadle.cycle import STAGES
from treadle.project import open_project
from treadle.rebuilding import rebuild as again


@click.command()
@click.argument("ref")
@json_option
def rebuild(ref: str, as_json: bool) -> int:
    """Run every step behind REF again, from its recorded inputs, in a fresh folder, and compare what comes out.

    A step is equal where it gave the same bytes, or within tolerance where it declares one and its figures are that
    near. Nothing in the project is changed. Exits 1 when a step gave something else.

    \b
    Example:
      treadle rebuild @champion
      treadle rebuild dataset@v1 --json
    """
    with open_project(here()) as project:
        if as_json:
            found = again(project, ref)
        else:
            with watching(STAGES, quiet=False) as listener:
                found = again(project, ref, listener)
    if as_json:
        emit(found.public())
        return 0 if found.ok else 1
    for line in table([[step.step, step.verdict, step.detail] for step in found.steps]):
        say(line)
    equal = sum(step.verdict == "equal" for step in found.steps)
    say(f"{equal} of {len(found.steps)} steps gave the same bytes again")
    return 0 if found.ok else 1
