"""``treadle backup`` and ``treadle restore``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from treadle.cli.output import emit, here, json_option, say, say_who_is_waited_for
from treadle.core.errors import UserError
from treadle.project import open_project
from treadle.restoring import BackedUp, PutBack, back_up, finish, put_back


@click.command()
@click.argument("to", default=".", metavar="[DIR|FILE]", type=click.Path())
@click.option("--objects", is_flag=True, help="With all objects in it; by default treadle push keeps them.")
@click.option("--remote", metavar="REMOTE", help="Look whether this remote has every object.")
@click.option("--no-keys", is_flag=True, help="Without the project's keys: keep those elsewhere.")
@json_option
def backup(to: str, objects: bool, remote: str | None, no_keys: bool, as_json: bool) -> int:
    """Write ledger, state, journal, settings and keys to one new file, as they are at one moment.

    Others may go on working. With the keys in it, only its owner can read the file: keep it as you keep a password.
    Every row is checked on the way. Exits 1 when an object is missing, here or at REMOTE.

    \b
    Example:
      treadle push team
      treadle backup /mnt/backup/ --remote team
    """
    with open_project(here()) as project:
        folder = to.endswith(os.sep)
        done = back_up(project, here() / to, folder=folder, keys=not no_keys, objects=objects, remote=remote)
    if as_json:
        emit(done.public())
    else:
        _tell_backup(done, objects, remote)
    return 1 if done.missing or done.lacking else 0


def _tell_backup(done: BackedUp, objects: bool, remote: str | None) -> None:
    shown = done.public()
    keys = "with the keys" if shown["keys"] else "WITHOUT the keys"
    say(f"{done.path}: {shown['rows']:,} rows, {shown['bytes'] / 1e6:,.1f} MB, {keys}")
    for digest in done.missing[:50]:
        say(f"PROBLEM  {digest}: is missing from the store; treadle pull fetches it where a remote has it")
    if not objects and remote is None:
        say(f"{done.expected:,} objects are not in it; treadle push keeps them")
    if remote is not None:
        short = f"lacks {len(done.lacking):,} of them: run treadle push {remote}" if done.lacking else "has them all"
        say(f"{done.expected:,} objects: {remote} {short}")


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--older", is_flag=True, help="Go back, and lose the rows that came after the backup.")
@click.option("--keep-ledger", is_flag=True, help="Only keys, head and journal: the ledger is sound where it is.")
@json_option
def restore(file: Path | None, older: bool, keep_ledger: bool, as_json: bool) -> int:
    """Put the backup FILE in the place of what is here, all of it or nothing.

    It is checked first: every row, signature and digest. What is here now is backed up under `backups` in the store. A
    backup that is older than a head of the ledger that was kept is refused without --older; the row `restored` says
    what is lost. People who were erased since are erased again. In an empty folder the project is made anew. Without
    FILE an interrupted restore is finished, and the list of erasures in the store is written anew from the ledger.

    \b
    Example:
      treadle restore /mnt/backup/docs-20260131T120000-000000.zip
      treadle pull team
    """
    if file is None and (older or keep_ledger):
        raise UserError("--older and --keep-ledger go with the FILE of a backup")
    if file is None:
        done = finish(here(), say_who_is_waited_for)
    else:
        done = put_back(here(), here() / file, older=older, keep_ledger=keep_ledger, waiting=say_who_is_waited_for)
    if as_json:
        emit(done.public())
    else:
        _tell_restore(done)
    return 0


def _tell_restore(done: PutBack) -> None:
    found = done.restored
    if found is not None:
        say(f"restored: {found.backup.size:,} rows of {found.made}")
        if found.lost:
            say(f"lost: {found.lost:,} rows after row {found.rows:,}; treadle verify goes on saying so")
        if found.kept is not None:
            say(f"what was here: {found.kept}")
    for line in done.unread:
        say(f"not compared with the heads in {line}")
    for line in done.unlisted:
        say(f"WARNING  {line}")
    for request in done.erased:
        say(f"{request} was erased since the backup was made: done again")
    if done.missing:
        least = "at least " if done.least else ""
        say(f"{least}{done.missing:,} objects are not here; treadle pull fetches them where a remote has them")
