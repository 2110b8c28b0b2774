"""``treadle approve`` and ``treadle reject``."""

from __future__ import annotations

import json
import secrets
from typing import Literal

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.core.errors import UserError
from treadle.core.secrets import conceal
from treadle.project import open_project
from treadle.stages.govern import promote_if_ready

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
        record = project.record
        version = record.versions.resolve(ref)
        if version is None or version.kind != "model":
            raise UserError(f"{ref!r} is no model version; expected model@v2 or @challenger")
        note = None
        if reason:
            # Salted, so that the name of the object does not let anyone guess at one person's words.
            text = json.dumps({"salt": secrets.token_hex(16), "text": conceal(reason)})
            note = record.store.put_bytes(text.encode())
        record.approvals.record(version.ref, decision, record.runs.keyed_actor(), note)
        outcome = promote_if_ready(record, project.file.govern, version) if decision == "approve" else "refused"
    if as_json:
        emit({"ref": version.ref, "decision": decision, "outcome": outcome})
    else:
        say(f"{version.ref} {decision}d: {outcome}" if decision == "approve" else f"{version.ref} rejected")
    return 0
