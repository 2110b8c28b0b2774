"""Backups of a project, and what it takes to have everything back after the disk is lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treadle.core import backup
from treadle.core.backup import Archive, Contents, Source
from treadle.core.bucket_store import BucketStore
from treadle.core.config import load
from treadle.core.errors import UserError
from treadle.core.fact import Row
from treadle.core.head_target import head_target
from treadle.core.keys import Keys
from treadle.core.publisher import Outside, read
from treadle.core.remote import introduce, is_bucket, open_remote
from treadle.core.restore import Restored, Target, put_beside, put_objects, restore
from treadle.core.store import Store
from treadle.core.transfer import Transfer
from treadle.core.verify import erased_objects, expected_objects, named_objects
from treadle.core.workspace import FORMAT, TABLES, Workspace
from treadle.erasing import repeat
from treadle.project import FILE, File, Project, cipher_of, find_folder, ledger_of, open_project, store_folder
from treadle.record import erasure_list
from treadle.record.record import PROJECTIONS

_NO_LIST = (
    f"{erasure_list.NAME} and a ledger that is sound were not here, so whoever was erased since the backup was made is "
    "back; treadle pull where it was pushed, or forget them again"
)


@dataclass
class BackedUp:
    """A backup that was written: how many objects the ledger needs, how many of them are in it, and which are neither
    in the store nor, where one was asked, at the remote."""

    path: Path
    contents: Contents
    expected: int = 0
    included: int = 0
    missing: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)

    def public(self) -> dict[str, Any]:
        """The shape that ``treadle backup --json`` promises."""
        names = self.contents.members
        return {
            "file": str(self.path),
            "bytes": self.path.stat().st_size,
            "made": self.contents.made,
            "rows": self.contents.head.size,
            "root": self.contents.head.root,
            "segments": sum(name.startswith("journal/") for name in names),
            "keys": any(name.startswith("keys/") for name in names),
            "objects": {"expected": self.expected, "included": self.included},
            "missing": self.missing,
            "lacking": self.lacking,
        }


def back_up(
    project: Project,
    to: Path,
    *,
    folder: bool = False,
    keys: bool = True,
    objects: bool = False,
    remote: str | None = None,
) -> BackedUp:
    """Write a backup to a new file, or to one with a name of its own in the folder ``to``; others may go on working.

    ``folder``: it has to be one that is there, so that nothing is written beside a disk that is not mounted.
    ``remote``: look whether it has all objects; their bytes are not read.
    """
    workspace = project.record.workspace
    if objects and workspace.store.cipher is not None:
        raise UserError("the store is encrypted and a backup is not: back up without --objects, and treadle push them")
    path = to / f"{project.file.name}-{backup.stamp()}.zip" if to.is_dir() else to
    if folder and not to.is_dir():
        raise UserError(f"there is no folder {to}; make it, or mount the disk that it is on, and back up again")
    expected = expected_objects(workspace)
    source = Source(workspace.root, workspace.database, workspace.keys, workspace.store, FORMAT, project.folder / FILE)
    here = [digest for digest in expected if workspace.store.has_object(digest)]
    contents = backup.write(source, path, keys=keys, objects=(lambda: here) if objects else None)
    included = sum(name.startswith("objects/") for name in contents.members)
    done = BackedUp(path, contents, len(expected), included)
    done.missing = sorted(expected - set(here))
    if remote is not None:
        place = open_remote(project.file.remotes.get(remote, remote), project.folder)
        introduce(place, writing=False)
        with Transfer(workspace.store, place) as transfer:
            done.lacking = sorted(digest for digest in expected if not transfer.holds(digest))
    return done


@dataclass
class PutBack:
    """What a restore came to: ``erased`` names requests that were done again, ``missing`` counts objects to pull, which
    is the ``least`` where lists of an artifact's files are among them; ``unread`` says which published heads could not
    be asked, ``unlisted`` what of the list of erasures could not be told, so that somebody may be back."""

    restored: Restored | None
    erased: list[str]
    missing: int
    unread: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    least: bool = False

    def public(self) -> dict[str, Any]:
        """The shape that ``treadle restore --json`` promises."""
        return {
            **(self.restored.public() if self.restored else {}),
            "erased_again": self.erased,
            "missing": self.missing,
            "unread": self.unread,
            "unlisted": self.unlisted,
        }


def put_back(
    start: Path, file: Path, *, older: bool = False, keep_ledger: bool = False, waiting: Callable[[str], object]
) -> PutBack:
    """Restore a backup into the project around ``start``, or make one there where there is none."""
    unread: list[str] = []
    with Archive(file) as archive:
        folder = _folder(start, archive)
        settings = load(folder / FILE, File)
        root, cipher = store_folder(folder, settings), cipher_of(folder, settings)
        place = ledger_of(folder, settings) or root / "treadle.db"
        listed = (root / erasure_list.NAME).exists()

        def elsewhere(keys: Keys, rows: Sequence[Row]) -> set[str]:
            local = Store(root, cipher)
            store = BucketStore(local, settings.store, keys.public) if is_bucket(settings.store) else local
            erasure_list.keep(rows, store, keys)  # for `finish`, which sees the restored ledger only
            return _only_listed(root, keys, rows)

        if keep_ledger:
            put_beside(archive, Target(root, place, (*TABLES, *PROJECTIONS), cipher=cipher, erased=elsewhere))
            restored = None
        else:
            outside = Outside()
            for name in settings.publish_heads:
                try:
                    read(head_target(name, folder), outside)
                except UserError as error:  # nothing was published there yet, or it is out of reach
                    unread.append(f"{name}: {error}")
            target = Target(root, place, (*TABLES, *PROJECTIONS), outside.heads, FORMAT, cipher, elsewhere)
            restored = restore(archive, target, older=older)
        if is_bucket(settings.store):
            with open_project(folder) as project:
                workspace = project.record.workspace
                gone = _only_listed(root, workspace.keys, list(workspace.ledger.rows("erasure")))
                put_objects(archive, workspace.store, erased_objects(workspace)[0] | gone)
    done = finish(folder, waiting, restored)
    if restored is not None and restored.kept is not None and not restored.kept.exists():
        restored.kept = None  # it held somebody who was erased
    done.restored, done.unread = restored, unread
    if restored is not None and not restored.sound and not listed:
        done.unlisted.insert(0, _NO_LIST)
    return done


def finish(start: Path, waiting: Callable[[str], object], restored: Restored | None = None) -> PutBack:
    """What comes after a restore: erasures made since are done again, and the list of them is mended from the ledger.
    Also goes on where one was interrupted."""
    with open_project(start) as project, project.record.workspace.exclusive(waiting):
        workspace = project.record.workspace
        known = erasure_list.read(erasure_list.present(workspace.root), workspace.keys)
        unlisted = [f"{problem.ref} {problem.detail}" for problem in erasure_list.strange(workspace)]
        kept, without = (restored.kept, restored.erased) if restored else (None, frozenset[str]())
        erased = repeat(project, known, spared=kept, without=without)
        erasure_list.keep(workspace.ledger.rows(*erasure_list.KINDS), workspace.store, workspace.keys)
        gone, under_way = erased_objects(workspace)
        back = {digest for digest in gone - under_way if workspace.store.has_object(digest)}
        if back:
            workspace.store.delete(back)
        missing = _missing(workspace)
        if missing and isinstance(workspace.store, BucketStore):  # killed before a restore sent what it had put here
            workspace.store.send_copies(sorted(missing))
            missing = _missing(workspace)
        least = any(name in missing for name, what in named_objects(workspace) if what.startswith("artifact"))
        return PutBack(None, erased, len(missing), unlisted=unlisted, least=least)


def _missing(workspace: Workspace) -> set[str]:
    return {name for name in expected_objects(workspace) if not workspace.store.has_object(name)}


def _only_listed(root: Path, keys: Keys, rows: Sequence[Row]) -> set[str]:
    """Objects that were erased by requests which no row tells of."""
    told = {row.body.get("request") for row in rows}
    known = erasure_list.read(erasure_list.present(root), keys)
    return {name for each in known if each.request not in told for name in each.objects}


def _folder(start: Path, archive: Archive) -> Path:
    """The project's folder; where there is none, ``start`` with the settings of the backup."""
    try:
        return find_folder(start)
    except UserError:
        if not archive.names(backup.SETTINGS):
            raise
    data = archive.read(backup.SETTINGS)
    temporary = start / f".{FILE}.{os.getpid()}"
    try:
        temporary.write_bytes(data)
        temporary.replace(start / FILE)
    except OSError as error:
        raise UserError(f"cannot write {start / FILE}: {error.strerror}; the folder must be writable") from None
    return start
