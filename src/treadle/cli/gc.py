"""``treadle gc``."""

from __future__ import annotations

import time
from typing import Any

import click

from treadle.cli.output import emit, here, json_option, say, say_who_is_waited_for
from treadle.core.bucket_store import BucketStore
from treadle.core.duration import parse_seconds
from treadle.core.errors import UserError
from treadle.locking import pinned
from treadle.project import open_project
from treadle.record.garbage import Limits, collect, find_garbage


def _seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_seconds(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: {error}") from None


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would go, and why; change nothing.")
@click.option("--keep-versions", type=click.IntRange(1), metavar="N", help="Older versions may go as well.")
@click.option("--older-than", callback=_seconds, metavar="AGE", help="Outputs may go that are older, such as 30d.")
@click.option("--grace", callback=_seconds, default="1h", metavar="AGE", help="What was put since then stays [1h].")
@click.option("--copies", is_flag=True, help="Only free the copies here of what lies in a bucket.")
@json_option
def gc(
    dry_run: bool, keep_versions: int | None, older_than: float | None, grace: float, copies: bool, as_json: bool
) -> None:
    """Free what no row of the ledger names: what killed runs left behind.

    With --keep-versions or --older-than also outputs of steps that no version, alias, release, deployment, canary,
    open turn, judgment or treadle.lock needs; the ledger accounts for them, their documents stay listed, and such a
    step runs again when its result is needed. With --older-than also checkpoints and replies that killed steps would
    go on from. Nothing that a running run holds is touched. Killed anywhere, the same command goes on.

    With --copies nothing is lost: where the store is a bucket, the copies on this machine go that were made before
    --grace, and what is needed again is fetched.

    \b
    Example:
      treadle gc --dry-run
      treadle gc --keep-versions 3 --older-than 30d
    """
    if copies:
        _copies(dry_run, keep_versions is not None or older_than is not None, grace, as_json)
        return
    with open_project(here()) as project, project.record.workspace.exclusive(say_who_is_waited_for):
        limits = Limits(keep_versions, older_than, grace, pinned(project.folder))
        garbage = find_garbage(project.record, limits)
        freed = 0 if dry_run else collect(project.record, garbage, limits)
    shown = {"dry_run": dry_run, "freed": freed, **garbage.public()}
    if as_json:
        emit(shown)
    else:
        _tell(shown)


def _copies(dry_run: bool, limited: bool, grace: float, as_json: bool) -> None:
    if dry_run or limited:
        raise UserError("--copies frees copies only, which cost nothing but a fetch; give it with --grace alone")
    with open_project(here()) as project:
        store = project.record.store
        if not isinstance(store, BucketStore):
            raise UserError(f"the store {store.root} is a folder and no copy; --copies is for a store in a bucket")
        freed = store.clear_copies(time.time() - grace)
    if as_json:
        emit({"freed": freed})
    else:
        say(f"gone: {freed / 1e6:,.1f} MB of copies of what lies in {store.bucket.url}")


def _tell(shown: dict[str, Any]) -> None:
    verb = "would go" if shown["dry_run"] else "gone"
    for reason in shown["reasons"]:
        say(f"{reason['reason']:<28} {_amount(reason)}")
    for kind, count in shown["artifacts"].items():
        say(f"  {kind:<26} {count:,} artifacts")
    say(f"{'too young to be judged':<28} {_amount(shown['waiting'])}")
    say(f"{'needed':<28} {_amount(shown['kept'])}")
    say(f"{verb}: {_amount(shown)}")


def _amount(figures: dict[str, Any]) -> str:
    return f"{figures['objects']:,} objects, {figures['bytes'] / 1e6:,.1f} MB"
