"""A remote: another place that holds objects of a store, so that they can be sent there and fetched again.

    remote               the number of this layout
    objects/ab/cdef...   an object as it is, as in a store
    lists/ab/cdef...     the chunks that make up a large object: their digests and sizes
    chunks/ab/cdef...    a chunk, named by its BLAKE3

A remote is asked four things only, each by name. Nothing that it says is believed: whoever reads checks digests.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from treadle.core.digest import PREFIX
from treadle.core.errors import UserError
from treadle.core.intake import sync_path
from treadle.core.plugins import load
from treadle.core.secrets import find

T = TypeVar("T")

FORMAT = 1
ATTEMPTS = 5
_FIRST_PAUSE = 0.25  # seconds; doubles with each attempt


class Remote(Protocol):
    """Where objects lie by name. ``OSError`` for what may go well the next time, ``FileNotFoundError`` for a name
    that is not there, ``PermissionError`` for what is not allowed."""

    url: str

    def names(self, prefix: str) -> Iterator[str]:
        """Names that begin with ``prefix``, which ends with a slash; none when there are none."""
        ...

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes under a name, from ``start``; fewer than ``length`` at the end."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put bytes under a name: whole or not at all, over what was there."""
        ...

    def delete(self, name: str) -> None:
        """Take a name away; nothing happens when it is not there."""
        ...


class Unreachable(UserError):
    """A remote that did not answer, however often it was asked."""


class FolderRemote:
    """A folder: a disk that is carried around, or a file system that several machines mount."""

    def __init__(self, folder: Path) -> None:
        self.url = str(folder)
        self._folder = folder

    def names(self, prefix: str) -> Iterator[str]:
        """As ``Remote``."""
        root = self._folder / prefix
        for place, folders, files in os.walk(root):
            folders.sort()
            inside = Path(place).relative_to(self._folder).as_posix()
            yield from (f"{inside}/{name}" for name in sorted(files) if not name.startswith("."))

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """As ``Remote``."""
        with (self._folder / name).open("rb") as file:
            file.seek(start)
            return file.read(-1 if length is None else length)

    def write(self, name: str, data: bytes) -> None:
        """As ``Remote``."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_path(path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """As ``Remote``."""
        (self._folder / name).unlink(missing_ok=True)


class Patient:
    """A remote that is asked again, after a growing pause, when it fails; ``Unreachable`` when it fails too often."""

    def __init__(self, remote: Remote) -> None:
        self.url = remote.url
        self._remote = remote

    def names(self, prefix: str) -> Iterator[str]:
        """As ``Remote``."""
        yield from self._ask(f"list {prefix}", lambda: list(self._remote.names(prefix)))

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """As ``Remote``."""
        return self._ask(f"read {name}", lambda: self._remote.read(name, start, length))

    def write(self, name: str, data: bytes) -> None:
        """As ``Remote``."""
        self._ask(f"write {name}", lambda: self._remote.write(name, data))

    def delete(self, name: str) -> None:
        """As ``Remote``."""
        self._ask(f"delete {name}", lambda: self._remote.delete(name))

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        reason = ""
        for attempt in range(ATTEMPTS):
            try:
                return call()
            except FileNotFoundError as error:
                if what.startswith("read "):
                    raise
                raise Unreachable(f"{self.url}: cannot {what}: {_reason(error)}; make the bucket first") from None
            except PermissionError as error:
                raise Unreachable(f"{self.url}: not allowed to {what}: {_reason(error)}; check its keys") from None
            except OSError as error:
                reason = _reason(error)
            if attempt < ATTEMPTS - 1:
                time.sleep(_FIRST_PAUSE * 2**attempt * (0.5 + random.random()))  # noqa: S311 (a pause, no secret)
        raise Unreachable(
            f"{self.url}: cannot {what}, tried {ATTEMPTS} times: {reason}; what arrived stays, the same command goes on"
        )


def _reason(error: OSError) -> str:
    text = " ".join(str(error.strerror or error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def open_remote(url: str, folder: Path) -> Remote:
    """The remote at a URL or in a folder, relative to ``folder``; ``UserError`` for an address that holds a secret,
    and for a kind that nobody has."""
    parts = urlsplit(url)
    if parts.username or parts.password or find(url):
        raise UserError("the remote's address holds a secret; keys come from the environment, never from an address")
    if "://" not in url:
        return Patient(FolderRemote((folder / url).absolute()))
    if parts.scheme == "file":
        return Patient(FolderRemote(Path(parts.path)))
    return Patient(load("treadle.remotes", parts.scheme).value(url))


def introduce(remote: Remote, *, writing: bool) -> None:
    """Check that this is a remote, or another project's store to read from; make one where nothing is yet.

    ``UserError`` for anything else.
    """
    try:
        found = remote.read("remote")
    except FileNotFoundError:
        found = None
    if found is not None:
        if found.strip() != str(FORMAT).encode():
            raise UserError(f"{remote.url} is a remote of format {found[:20]!r}; this Treadle knows format {FORMAT}")
        return
    store = _is_store(remote)
    if writing and store:
        raise UserError(f"{remote.url} is a project's own store; pull from it, or push to another place")
    if writing:
        remote.write("remote", f"{FORMAT}\n".encode())
    elif not store:
        raise UserError(f"there is no remote at {remote.url}; treadle push makes one")


def _is_store(remote: Remote) -> bool:
    try:
        return bool(remote.read("format"))
    except FileNotFoundError:
        return False


def place(kind: str, digest: str) -> str:
    """Where an object, list or chunk lies: ``objects/ab/cdef...``."""
    name = digest.removeprefix(PREFIX)
    return f"{kind}/{name[:2]}/{name[2:]}"


def listed(remote: Remote, kind: str) -> set[str]:
    """Digests of what there is of a kind."""
    names = (name.split("/")[-2:] for name in remote.names(f"{kind}/"))
    return {PREFIX + "".join(parts) for parts in names if len("".join(parts)) == 64}
