"""``treadle verify``."""

from __future__ import annotations

import click

from treadle.cli.output import emit, here, json_option, say
from treadle.core.publisher import read_named
from treadle.core.verify import verify as check
from treadle.project import open_project
from treadle.record import erasure_list


@click.command()
@click.option("--head", "targets", multiple=True, metavar="TARGET", help="Compare with heads kept there, too.")
@json_option
def verify(targets: tuple[str, ...], as_json: bool) -> int:
    """Check every row, signature, projection and object; exits 1 and names what was tampered with.

    Every head that was published (`publish_heads` in treadle.yaml; TARGET: a file, a folder, git:PATH) has to be one of
    this history, so an older database is noticed even where the head.json of its time came back with it.

    \b
    Example:
      treadle verify --json
    """
    with open_project(here()) as project:
        outside = project.publisher.outside()
        for name in targets:
            read_named(name, here(), outside)
        found = check(project.record.workspace, outside, erasure_list.problems(project.record.workspace))
    if as_json:
        emit(found.public())
        return 0 if found.ok else 1
    for problem in found.problems[:50]:
        say(f"PROBLEM  {problem.kind} {problem.ref}: {problem.detail}")
    if len(found.problems) > 50:
        say(f"... and {len(found.problems) - 50} more; --json lists all")
    for each in found.restores:
        say(f"restored  row {each['row']}, {each['time']}: {each['lost']:,} rows after row {each['after']} were lost")
    word = "ok" if found.ok else "NOT ok"
    counts = f"{found.objects:,} objects, {found.rows:,} rows, {found.erased:,} erased"
    if found.collected:
        counts += f", {found.collected:,} collected"
    heads = f"{found.heads:,} published heads, " if found.heads else ""
    say(f"{word}: {counts}, {heads}{len(found.problems):,} problems")
    return 0 if found.ok else 1
