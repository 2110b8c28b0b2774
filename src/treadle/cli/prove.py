"""``treadle prove``."""

from __future__ import annotations

from pathlib import Path

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.core.publisher import largest
from treadle.project import open_project
from treadle.record.presence import export


@click.command()
@click.argument("ref")
@click.option("--out", "folder", required=True, metavar="DIR", type=click.Path(path_type=Path), help="A new folder.")
@click.option("--since", metavar="HEAD", help="Prove too that nothing before an earlier published head was changed.")
@json_option
def prove(ref: str, folder: Path, since: str | None, as_json: bool) -> None:
    """Write files that prove to anybody that REF stands in the ledger, and the script of 80 lines that checks them.

    REF is model@v1 (its version), @champion (the move of the alias), release:model@v1, approval:model@v1, b3:...,
    run-..., era-... or the number of a row. HEAD is where heads are published; the largest one there is taken.

    \b
    Example:
      treadle prove @champion --out proof
      python proof/check.py proof
    """
    with open_project(here()) as project:
        done = export(project.record, ref, here() / folder, largest(since, here()) if since else None)
    if as_json:
        emit(done.public())
        return
    say(f"row {done.row} ({done.kind}) is in the ledger of {done.size:,} rows, root {done.root[:16]}")
    if done.earlier is not None:
        say(f"which continues the one of {done.earlier:,} rows")
    say(f"check it anywhere: python {folder}/check.py {folder}")
