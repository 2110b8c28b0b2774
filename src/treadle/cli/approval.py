"""``treadle approve`` and ``treadle reject``."""

from __future__ import annotations

from typing import Literal

import click

from treadle.approving import decide
from treadle.cli.output import emit, here, json_option, say
from treadle.project import open_project

REASON = click.option("--reason", help="Why; kept in the store, not in the ledger.")


@click.command()
@click.argument("ref")
@REASON
@json_option
def approve(ref: str, reason: str | None, as_json: bool) -> int:
    """Approve a version that waits; it is promoted when its gates passed and enough people agree.

    \b
    Example:
      treadle approve model@v2 --reason "reads well"
    """
    return _decide(ref, "approve", reason, as_json=as_json)


@click.command()
@click.argument("ref")
@REASON
@json_option
def reject(ref: str, reason: str | None, as_json: bool) -> int:
    """Refuse a version; it is not promoted, whoever else approves.

    \b
    Example:
      treadle reject model@v2 --reason "too terse"
    """
    return _decide(ref, "reject", reason, as_json=as_json)


def _decide(ref: str, decision: Literal["approve", "reject"], reason: str | None, *, as_json: bool) -> int:
    with open_project(here()) as project, project.record.workspace.exclusive():
        decided = decide(project, ref, decision, reason, actor=project.record.runs.keyed_actor())
    if as_json:
        emit(decided.public())
    elif decision == "approve":
        say(f"{decided.ref} approved: {decided.outcome}" + (f" ({decided.reason})" if decided.reason else ""))
    else:
        say(f"{decided.ref} rejected")
    return 0
