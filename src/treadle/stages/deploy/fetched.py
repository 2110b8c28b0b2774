"""A release that its server fetches from a remote before it answers: every byte checked, and put in its place whole.

    FOLDER                  the release, there from one moment to the next
    .arriving/<digest>/     beside it, a store with what of it has come so far; gone when the release is in its place

What was cut off, or killed, goes on where it was. Nothing is fetched where FOLDER already has the release.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from treadle.core.cipher import open_cipher
from treadle.core.digest import PREFIX, is_digest
from treadle.core.errors import Corrupt, Refused, UserError
from treadle.core.known import Known
from treadle.core.remote import Remote, introduce, is_there, open_remote, place
from treadle.core.sealed_remote import SealedRemote
from treadle.core.store import MANIFEST_LIMIT, Store
from treadle.core.store_remote import readable
from treadle.core.transfer import Moved, Transfer
from treadle.stages.deploy.carried import CarriedRelease, read_carried

KEYS = "TREADLE_ENCRYPTION_KEY"  # holds the keys of a remote that is encrypted, as those that `encryption` names
_ARRIVING = ".arriving"


def fetched(
    folder: Path, url: str, digest: str | None, *, name: str | None = None
) -> tuple[CarriedRelease, Moved | None]:
    """The release in ``folder``, fetched from the remote at ``url`` where it is not there or was changed; and what
    travelled, None where nothing had to. Who fetches beside it is waited for.

    ``UserError`` where the remote cannot be read, is encrypted under other keys or lacks the release, and where the
    place cannot be written; ``Corrupt`` for what is damaged there. The folder is then as it was.
    """
    if digest is None or not is_digest(digest):
        raise UserError(f"digest {digest!r}: expected that of the release to fetch, b3: and 64 hexadecimal digits")
    if (there := _whole(folder, digest, name)) is not None:
        return there, None
    try:
        with _alone(folder.parent):
            if (there := _whole(folder, digest, name)) is not None:  # fetched by another meanwhile
                return there, None
            moved = _fetch(url, digest, folder)
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; what arrived stays, the same command goes on"
        ) from None
    return read_carried(folder, expected=digest, name=name), moved


def check_sent(url: str, folder: Path, digest: str) -> None:
    """``UserError`` unless the remote has a release, as far as its manifest says, which a push sends last."""
    remote = open_remote(url, folder)
    introduce(remote, writing=False)
    _check_there(remote, digest)


def _whole(folder: Path, digest: str, name: str | None) -> CarriedRelease | None:
    with suppress(UserError, Refused):
        return read_carried(folder, expected=digest, name=name)
    return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep everyone else from fetching into the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _fetch(url: str, digest: str, folder: Path) -> Moved:
    if folder.is_dir() and not folder.is_symlink() and any(folder.iterdir()) and not (folder / "release.json").exists():
        raise UserError(f"{folder} holds something else than a release; name a folder of its own for it")
    arriving = folder.parent / _ARRIVING
    here = arriving / digest.removeprefix(PREFIX)
    cipher = open_cipher(f"${{env:{KEYS}}}", here) if os.environ.get(KEYS) else None
    sealed = SealedRemote(open_remote(url, Path.cwd()), cipher)
    introduce(sealed, writing=False)
    remote = readable(sealed, cipher)
    _check_there(remote, digest)
    # What the remote has is not listed: it may be much, and one release is asked for.
    with closing(Store(here)) as store, Transfer(store, remote, Known()) as transfer:
        store.clear_temporary()
        store.mend()
        _take(transfer, {digest: MANIFEST_LIMIT})
        _take(transfer, {entry.digest: entry.size for entry in store.entries(digest)})
        shown = store.view(digest)
        if folder.exists() or folder.is_symlink():
            folder.rename(store.new_folder("before-") / folder.name)  # not the release, or changed since
        shown.rename(folder)
        moved = transfer.moved
    shutil.rmtree(arriving, ignore_errors=True)
    return moved


def _take(transfer: Transfer, most: Mapping[str, int]) -> None:
    """Fetch those that have not arrived, or not whole, each of so many bytes at most; the first problem is raised."""
    wanted = []
    for digest in most:
        try:
            transfer.store.check(digest)
            transfer.moved.present += 1
        except Corrupt:
            wanted.append(digest)
    transfer.fetch(wanted, most)
    for problem in transfer.moved.problems.values():
        raise Corrupt(f"{problem}; the release is served once the remote has it whole")


def _check_there(remote: Remote, digest: str) -> None:
    if not any(is_there(remote, place(kind, digest)) for kind in ("objects", "lists")):
        raise UserError(f"{remote.url} has no release {digest}; treadle push REMOTE {digest} sends it there")
