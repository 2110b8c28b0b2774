"""``treadle head``."""

from __future__ import annotations

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.core.head_target import FORMS, head_target
from treadle.project import open_project


@click.command()
@click.option("--publish", "target", metavar="TARGET", help=f"Also write it to {FORMS}.")
@json_option
def head(target: str | None, as_json: bool) -> None:
    """Show the latest signed head of the ledger: whoever keeps one can tell later whether history was rewritten.

    With `publish_heads` in treadle.yaml a head is published by itself after each turn, promotion, approval and erasure.

    \b
    Example:
      treadle head --publish heads.jsonl
    """
    with open_project(here()) as project:
        workspace = project.record.workspace
        latest, public = workspace.ledger.head(), workspace.keys.public
        if target is not None:
            workspace.database.sync()
            head_target(target, here()).publish(latest, public)
    if as_json:
        shown = {"size": latest.size, "root": latest.root, "signature": latest.signature, "public_key": public}
        emit({**shown, "published": target})
        return
    say(f"size        {latest.size}")
    say(f"root        {latest.root}")
    say(f"signature   {latest.signature}")
    say(f"public key  {public}")
    if target is not None:
        say(f"published   {target}")
