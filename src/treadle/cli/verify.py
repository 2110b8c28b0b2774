"""``treadle verify``."""

from __future__ import annotations

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.core.verify import verify as check
from treadle.project import open_project


@click.command()
@json_option
def verify(as_json: bool) -> int:
    """Check every row, signature, projection and object; exits 1 and names what was tampered with.

    \b
    Example:
      treadle verify --json
    """
    with open_project(here()) as project:
        found = check(project.record.workspace)
    if as_json:
        emit(found.public())
        return 0 if found.ok else 1
    for problem in found.problems[:50]:
        say(f"PROBLEM  {problem.kind} {problem.ref}: {problem.detail}")
    if len(found.problems) > 50:
        say(f"... and {len(found.problems) - 50} more; --json lists all")
    word = "ok" if found.ok else "NOT ok"
    counts = f"{found.objects:,} objects, {found.rows:,} rows, {found.erased:,} erased"
    if found.collected:
        counts += f", {found.collected:,} collected"
    say(f"{word}: {counts}, {len(found.problems):,} problems")
    return 0 if found.ok else 1
