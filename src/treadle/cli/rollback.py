"""``treadle rollback``."""

from __future__ import annotations

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.project import open_project
from treadle.stages.govern.promotion import roll_back


@click.command()
@click.option("--reason", help="Why; kept in the store, not in the ledger.")
@json_option
def rollback(reason: str | None, as_json: bool) -> None:
    """Take back what is new, at once: the canary where one is being tried, else the champion for the one before it.

    A running `treadle serve` switches within a second and loses no request. What was taken back is not promoted again
    unless somebody approves it after that.

    \b
    Example:
      treadle rollback --reason "answers have become rude"
    """
    with open_project(here()) as project:
        done = roll_back(project.record, reason)
    if as_json:
        emit(done.public())
    elif done.what == "canary":
        say(f"{done.version} is no longer tried; @champion is {done.now}")
    else:
        say(f"{done.version} is taken back; @champion = {done.now}")
