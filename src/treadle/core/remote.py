"""A remote: another place that holds objects of a store, so that they can be sent there and fetched again.

    remote               the number of this layout
    objects/ab/cdef...   an object as it is, as in a store
    lists/ab/cdef...     the chunks that make up a large object: their digests and sizes
    chunks/ab/cdef...    a chunk, named by its BLAKE3

A remote is asked six things only, each by name. Nothing that it says is believed: whoever reads checks digests.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

from treadle.core.digest import PREFIX, is_digest
from treadle.core.errors import UserError
from treadle.core.intake import sync_path
from treadle.core.plugins import load
from treadle.core.secrets import find

T = TypeVar("T")

FORMAT = 1
STORE = "store"  # the name under which a bucket that is a project's store says whose
ATTEMPTS = 5
_FIRST_PAUSE = 0.25  # seconds; doubles with each attempt


class Item(NamedTuple):
    """What lies under a name: bytes, and when they were put there (seconds since the epoch, by the remote's clock)."""

    name: str
    size: int
    changed: float


class Remote(Protocol):
    """Where objects lie by name. ``OSError`` for what may go well the next time, ``FileNotFoundError`` for a name
    that is not there, ``PermissionError`` for what is not allowed."""

    url: str

    def names(self, prefix: str) -> Iterator[str]:
        """Names that begin with ``prefix``, which ends with a slash; none when there are none."""
        ...

    def items(self, prefix: str) -> Iterator[Item]:
        """The same, with sizes and times."""
        ...

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes under a name, from ``start``; fewer than ``length`` at the end."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put bytes under a name: whole or not at all, over what was there."""
        ...

    def renew(self, name: str) -> None:
        """Make what lies under a name as young as if it had been written now."""
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

    def items(self, prefix: str) -> Iterator[Item]:
        """As ``Remote``."""
        for name in self.names(prefix):
            with suppress(FileNotFoundError):
                status = (self._folder / name).stat()
                yield Item(name, status.st_size, status.st_mtime)

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

    def renew(self, name: str) -> None:
        """As ``Remote``."""
        os.utime(self._folder / name)

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

    def items(self, prefix: str) -> Iterator[Item]:
        """As ``Remote``."""
        yield from self._ask(f"list {prefix}", lambda: list(self._remote.items(prefix)))

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """As ``Remote``."""
        return self._ask(f"read {name}", lambda: self._remote.read(name, start, length))

    def write(self, name: str, data: bytes) -> None:
        """As ``Remote``."""
        self._ask(f"write {name}", lambda: self._remote.write(name, data))

    def renew(self, name: str) -> None:
        """As ``Remote``."""
        self._ask(f"renew {name}", lambda: self._remote.renew(name))

    def delete(self, name: str) -> None:
        """As ``Remote``."""
        self._ask(f"delete {name}", lambda: self._remote.delete(name))

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        reason = ""
        for attempt in range(ATTEMPTS):
            try:
                return call()
            except FileNotFoundError as error:
                if what.startswith(("read ", "renew ")):
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


def is_bucket(place: str) -> bool:
    """Whether a place is named by a URL, and not as a folder."""
    return "://" in place


def check_address(url: str) -> None:
    """``UserError`` for an address that holds a secret, and for a kind that nobody has."""
    parts = urlsplit(url)
    if parts.username or parts.password or find(url):
        raise UserError("the address holds a secret; keys come from the environment, never from an address")
    if is_bucket(url) and parts.scheme != "file":
        load("treadle.remotes", parts.scheme)


def open_remote(url: str, folder: Path) -> Remote:
    """The remote at a URL or in a folder, relative to ``folder``. Errors as ``check_address``."""
    check_address(url)
    parts = urlsplit(url)
    if not is_bucket(url):
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
    for name in ("format", STORE):
        with suppress(FileNotFoundError):
            remote.read(name)
            return True
    return False


def is_there(remote: Remote, name: str) -> bool:
    """Whether something lies under a name; costs one byte. Of a remote as it is, below any encryption."""
    try:
        remote.read(name, 0, 1)
    except FileNotFoundError:
        return False
    return True


def place(kind: str, digest: str) -> str:
    """Where an object, list or chunk lies: ``objects/ab/cdef...``."""
    name = digest.removeprefix(PREFIX)
    return f"{kind}/{name[:2]}/{name[2:]}"


def listed(remote: Remote, kind: str) -> set[str]:
    """Digests of what there is of a kind."""
    return {digest for digest in map(digest_in, remote.names(f"{kind}/")) if is_digest(digest)}


def digest_in(name: str) -> str:
    """The digest that a name is made of; for a name put there by hand something that is none."""
    return PREFIX + "".join(name.split("/")[-2:])
