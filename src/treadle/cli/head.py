"""``treadle head``."""

from __future__ import annotations

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.core.head_target import FORMS
from treadle.core.publisher import show_head
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
        found = show_head(project.record.workspace, target, here())
    if as_json:
        emit(found)
        return
    for name in ("size", "root", "signature", "public_key"):
        say(f"{name.replace('_', ' '):<11} {found[name]}")
    if target is not None:
        say(f"published   {target}")
