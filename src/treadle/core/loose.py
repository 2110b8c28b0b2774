"""Objects that lie by themselves: `objects/ab/cdef...` as they are, `objects/ab/cdef....sealed` encrypted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from treadle.core.cipher import encrypted_size, plain_size
from treadle.core.digest import PREFIX, is_digest
from treadle.core.errors import Corrupt
from treadle.core.intake import copied, sync_files, sync_folders

SEALED = ".sealed"
PACKS = "packs"  # the folder beside them


class Stored(NamedTuple):
    """Where the bytes of an object are: a file, or a part of a pack."""

    path: str
    length: int  # bytes that it takes there
    encrypted: bool
    start: int | None = None  # in a pack
    modified: float = 0.0  # seconds since the epoch, where that was asked for

    @property
    def size(self) -> int:
        """Bytes of the object; ``Corrupt`` when what lies there cannot be it."""
        return plain_size(self.length) if self.encrypted else self.length

    def is_of(self, size: int) -> bool:
        """Whether so many bytes would lie like this."""
        return self.length == (encrypted_size(size) if self.encrypted else size)


class Loose:
    """The files under ``objects/``, but for the packs."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._objects = f"{root}/objects"

    def place(self, digest: str, *, encrypted: bool = False) -> str:
        """Where an object lies, or would."""
        name = digest.removeprefix(PREFIX)
        return f"{self._objects}/{name[:2]}/{name[2:]}{SEALED if encrypted else ''}"

    def find(self, digest: str) -> Iterator[Stored]:
        """Where it does lie."""
        place = self.place(digest)
        for path, encrypted in ((place, False), (place + SEALED, True)):
            try:
                status = os.stat(path)  # noqa: PTH116 (hot)
            except FileNotFoundError:
                continue
            yield Stored(path, status.st_size, encrypted, modified=status.st_mtime)

    def all(self) -> Iterator[tuple[str, Stored]]:
        """Every file by the name of the object that it would be; what is no object has no such name."""
        for folder in self._folders():
            start = f"{self._objects}/{folder}/"
            for name in sorted(os.listdir(start)):  # noqa: PTH208 (hot)
                try:
                    status = os.lstat(start + name)
                except FileNotFoundError:
                    continue
                encrypted = name.endswith(SEALED)
                digest = PREFIX + folder + name.removesuffix(SEALED)
                yield digest, Stored(start + name, status.st_size, encrypted, modified=status.st_mtime)

    def names(self) -> set[str]:
        """The names of all of them; sooner known than each of many by itself."""
        listed = ((folder, os.listdir(f"{self._objects}/{folder}")) for folder in self._folders())  # noqa: PTH208 (hot)
        return {PREFIX + folder + name.removesuffix(SEALED) for folder, names in listed for name in names}

    def strays(self) -> Iterator[tuple[str, str]]:
        """Files that are no objects, and links, by the name that they would have; with where they are."""
        for folder, folders, files in os.walk(self._objects):
            folders[:] = sorted(name for name in folders if folder != self._objects or name != PACKS)
            short = os.path.basename(folder) if folder != self._objects else ""  # noqa: PTH119 (hot)
            for name in sorted(files):
                digest = PREFIX + short + name.removesuffix(SEALED)
                path = f"{folder}/{name}"
                if self.place(digest) != path.removesuffix(SEALED) or not is_digest(digest) or os.path.islink(path):  # noqa: PTH114 (hot)
                    yield digest, path

    def _folders(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._objects) if len(name) == 2)  # noqa: PTH208 (hot)
        except FileNotFoundError:
            return []

    def name(self, files: Sequence[tuple[str, str]]) -> None:
        """Move files to their places: on the disk before they are named, and named there when this returns."""
        sync_files([path for path, _ in files], self._root)
        folders = {os.path.dirname(place) for _, place in files}  # noqa: PTH120 (hot)
        fresh = [folder for folder in folders if not os.path.isdir(folder)]  # noqa: PTH112 (hot)
        for folder in fresh:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103 (hot)
        for path, place in files:
            os.replace(path, place)  # noqa: PTH105 (hot)
        sync_folders([*folders, *map(os.path.dirname, fresh)], self._root)

    def delete(self, digest: str) -> int:
        """Take an object away; returns the bytes that it took."""
        freed = 0
        for stored in self.find(digest):
            Path(stored.path).unlink(missing_ok=True)
            freed += stored.length
        return freed


def sole(path: str) -> str:
    """A file that nobody else has a name for and could write to: the same, read-only from now on, or a copy."""
    status = os.stat(path)  # noqa: PTH116 (hot)
    if status.st_nlink > 1:
        copy = path + ".copy"
        copied(path, copy)
        os.unlink(path)  # noqa: PTH108 (hot)
        return copy
    if status.st_mode & 0o777 != 0o444:
        os.chmod(path, 0o444)  # noqa: PTH101 (hot)
    return path


def check_name(digest: str) -> None:
    """``Corrupt`` when it names no object."""
    if not is_digest(digest):
        raise Corrupt(f"{digest[:80]!r} does not name an object")
