"""``treadle lock`` and ``treadle checkout``."""

from __future__ import annotations

from pathlib import Path

import click

from treadle.cli.output import emit, here, json_option, say, short
from treadle.locking import FILE, write_lock
from treadle.locking import checkout as check_out
from treadle.project import open_project


@click.command()
@json_option
def lock(as_json: bool) -> None:
    """Write treadle.lock: the digests of champion, dataset, model and release, for Git to keep with treadle.yaml.

    Once it is there, each turn that ends well in a work tree of Git brings it up to date. One line a thing, so that it
    merges cleanly.

    \b
    Example:
      treadle lock
      git add treadle.lock
    """
    with open_project(here()) as project:
        found = write_lock(project)
        path = project.folder / FILE
    if as_json:
        emit({"path": str(path), "pins": [pin.public() for pin in found]})
        return
    for pin in found:
        say(f"{pin.thing:<9} {short(pin.digest)}  {pin.ref or ''}".rstrip())


@click.command()
@click.argument("lockfile", required=False, type=click.Path(path_type=Path))
@json_option
def checkout(lockfile: Path | None, as_json: bool) -> None:
    """Make the versions that LOCKFILE (treadle.lock) names current again, where their objects are in the store.

    The next `treadle run` takes the champion named there as its model instead of training one; what was made for it is
    remembered. Who answers users does not change by this: the gates judge it as any candidate, against the present
    champion. For the version before, at once: treadle rollback.

    \b
    Example:
      git checkout v1.2
      treadle checkout
      treadle run
    """
    with open_project(here()) as project, project.record.workspace.exclusive():
        done = check_out(project, lockfile or project.folder / FILE)
    if as_json:
        emit(done.public())
        return
    for pin in done.pins:
        say(f"{pin.thing:<9} {short(pin.digest)}  {pin.ref or ''}".rstrip())
    said = "is champion already" if done.turn is None else f"is judged by turn {done.turn}; treadle run"
    say(f"{done.version.ref} {said}")
