"""``treadle forget``."""

from __future__ import annotations

import click

from treadle.cli.live import watching
from treadle.cli.output import emit, here, json_option, say
from treadle.cycle import STAGES
from treadle.erasing import Forgotten
from treadle.erasing import forget as erase
from treadle.project import open_project


@click.command()
@click.argument("subject")
@click.option("--dry-run", is_flag=True, help="Say what would go; change nothing.")
@click.option("--no-rebuild", is_flag=True, help="Delete at once, without making a new version first.")
@json_option
def forget(subject: str, dry_run: bool, no_rebuild: bool, as_json: bool) -> int:
    """Erase SUBJECT (a name, address or id) from documents, models, answers and feedback, and keep them out.

    The ordinary cycle rebuilds without them, no further than it had come, then the old objects are deleted; treadle
    verify accepts exactly what the erasure accounts for. Killed anywhere, the same command goes on. Your own source
    files are not edited.

    \b
    Example:
      treadle forget jane.roe@example.org --dry-run
      treadle forget jane.roe@example.org
    """
    with (
        open_project(here()) as project,
        project.record.workspace.exclusive(),
        watching(STAGES, quiet=as_json) as listener,
    ):
        found = erase(project, subject, dry_run=dry_run, rebuild=not no_rebuild, listener=listener)
    if as_json:
        emit(found.public())
    else:
        verb = "would go" if dry_run else "gone"
        say(
            f"{verb}: {found.documents} documents, {found.interactions} interactions, {found.feedback} feedback; "
            f"{len(found.artifacts)} artifacts made from them"
            + ("" if dry_run else f" ({found.objects} objects deleted)")
        )
        if found.lake:
            say(f"gone from the lake: {found.lake} files, written anew without them")
        if found.collected:
            say(f"not searched, for treadle gc deleted their texts: {found.collected} corpora")
        if not dry_run:
            say(_outcome(found))
    return 1 if found.rebuilt is False else 0


def _outcome(found: Forgotten) -> str:
    if found.rebuilt:
        return "rebuilt without them; treadle verify proves it"
    if found.rebuilt is False:
        lacking = "there is no new champion" if found.reached == "deploy" else "nothing was rebuilt"
        return f"deleted, but {lacking}: {found.why_not}"
    if found.artifacts:
        return "deleted; nothing was rebuilt: treadle run makes a new version"
    return "nothing had to be rebuilt; they are on the suppression list from now on"
