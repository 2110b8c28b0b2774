"""``treadle push`` and ``treadle pull``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import click

from treadle.cli.output import emit, here, json_option, say, say_who_is_waited_for
from treadle.core.transfer import Moved
from treadle.erasing import repeat
from treadle.project import Project, open_project
from treadle.record.exchange import erasures_at
from treadle.record.exchange import pull as fetch
from treadle.record.exchange import push as send


@click.command()
@click.argument("remote")
@click.argument("refs", nargs=-1, metavar="[REF]...")
@json_option
def push(remote: str, refs: tuple[str, ...], as_json: bool) -> int:
    """Send what REMOTE lacks: everything the ledger names, or the artifacts REF.

    REMOTE is a folder, an address such as s3://bucket/folder, or a name under `remotes` in treadle.yaml; keys come from
    the environment. Large files travel in chunks, so what changed in the middle costs a chunk or two. Killed or cut
    off, the same command goes on. What was erased here is deleted there as well. Exits 1 when something is damaged.

    \b
    Example:
      treadle push /mnt/backup/objects
      treadle push s3://bucket/team @champion
    """
    return _move(send, "sent", remote, refs, as_json)


@click.command()
@click.argument("remote")
@click.argument("refs", nargs=-1, metavar="[REF]...")
@json_option
def pull(remote: str, refs: tuple[str, ...], as_json: bool) -> int:
    """Fetch what is missing or damaged here: of everything the ledger names, or of the artifacts REF.

    REMOTE as for push, or the store of another project. Every byte is checked, what is here as well as what comes; an
    object gets its name only when its digest is right. What was erased stays away; what was collected comes back when
    it is named as REF. Waits for whoever changes the project, such as treadle forget. Exits 1 when
    something could not be fetched.

    \b
    Example:
      treadle pull /mnt/backup/objects
      treadle pull s3://bucket/team model@v3
    """
    return _move(fetch, "fetched", remote, refs, as_json)


def _catch_up(project: Project, remote: str) -> None:
    """Erasures that the remote knows of and a restored ledger does not are done again before anything comes."""
    known = erasures_at(project.record, project.file.remotes.get(remote, remote), project.folder)
    for request in repeat(project, known):
        click.echo(f"{request} was erased since the backup was made: done again", err=True)


def _move(move: Callable[..., Moved], verb: str, remote: str, refs: tuple[str, ...], as_json: bool) -> int:
    with open_project(here()) as project:
        held = project.record.workspace.exclusive(say_who_is_waited_for) if move is fetch else nullcontext()
        with held:
            if move is fetch:
                _catch_up(project, remote)
            moved = move(project.record, project.file.remotes.get(remote, remote), project.folder, refs)
    if as_json:
        emit(moved.public())
        return 1 if moved.problems else 0
    for digest, detail in sorted(moved.problems.items())[:50]:
        say(f"PROBLEM  {digest}: {detail}")
    gone = f", {moved.deleted:,} deleted there" if moved.deleted else ""
    say(
        f"{verb}: {moved.objects:,} objects, {moved.bytes / 1e6:,.1f} MB; {moved.present:,} were there{gone}, "
        f"{len(moved.problems):,} problems"
    )
    return 1 if moved.problems else 0
