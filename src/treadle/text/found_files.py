"""Files of this machine that a path, a folder or a glob names.

Links are followed, but a folder that several ways lead to is read once: where it lies if that is one of them. A link
that leads back into its own folder would otherwise give every file many times.
"""

from __future__ import annotations

import errno
import functools
import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from treadle.core.errors import UserError
from treadle.text.known_files import file_digest

_WHOLLY_HASHED = 1 << 28  # bytes; a larger file's fingerprint is its size and time


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read: where it is and how locators call it. Pipes and links that lead nowhere are found too, to
    be told; every method raises ``OSError`` for them.
    """

    path: Path
    locator: str

    def open(self) -> BinaryIO:
        """A stream of it."""
        self._check()
        return self.path.open("rb")

    def size(self) -> int:
        """In bytes."""
        return self.path.stat().st_size

    def digest(self) -> str:
        """What changes with its contents."""
        self._check()
        status = self.path.stat()
        large = status.st_size > _WHOLLY_HASHED
        return f"{status.st_size} {status.st_mtime_ns}" if large else file_digest(self.path)

    def _check(self) -> None:
        """Opening a pipe would wait for its writer."""
        if self.path.is_file():
            return
        if self.path.is_symlink() and not self.path.exists():
            to = os.fsencode(self.path.readlink()).decode("utf-8", "backslashreplace")
            reason = f"a link to {to}, where nothing is; fetch it, or mount its disk"
            raise FileNotFoundError(errno.ENOENT, reason)
        if self.path.exists():
            raise OSError(errno.EINVAL, "no regular file: a pipe, a socket or a device")


def find_files(path: str, project: Path, most: int) -> Sequence[FoundFile]:
    """What a path, folder or glob names, sorted; ``UserError`` when that is nothing, or more than ``most``."""
    pattern = os.path.expanduser(path)  # noqa: PTH111 (a glob is no path)
    if (project / pattern).is_file():
        return [_found(project, project / pattern)]
    if (project / pattern).is_dir():
        pattern = f"{glob.escape(pattern)}/**/*"
    found: dict[tuple[str, str], Path] = {}
    real = functools.cache(os.path.realpath)
    for name in _names(pattern, project):
        each = project / name
        if each.is_dir():
            continue
        folder = real(os.path.dirname(each))  # noqa: PTH120 (for speed)
        other = found.setdefault((folder, each.name), each)
        if other is not each and _way(each, folder, project) < _way(other, folder, project):
            found[folder, each.name] = each
        if len(found) > most:
            raise UserError(f"files: {path} names more than {most} files; raise max_files")
    if not found:
        raise UserError(
            f"files: nothing matches {path} in {project}; expected a file, a folder, or a glob such as data/**/*.jsonl"
        )
    return sorted((_found(project, each) for each in found.values()), key=lambda file: file.locator)


def _way(path: Path, folder: str, project: Path) -> tuple[bool, int, str]:
    """What the better of two ways to a file has less of; ``folder`` is where it lies."""
    within = path.parent.relative_to(project) if path.is_relative_to(project) else path.parent
    linked = os.path.normpath(project.resolve() / within) != folder
    return linked, len(path.parts), str(path)


def _names(pattern: str, project: Path) -> Iterator[str]:
    """What a glob matches; ``**`` goes through each folder once, where ``glob`` follows a circle until the system will
    not.
    """
    parts = pattern.split("/")
    if "**" not in parts:
        yield from glob.iglob(pattern, root_dir=project)  # noqa: PTH207 (root_dir)
        return
    place = parts.index("**")
    start, rest = "/".join(parts[:place]), "/".join(parts[place + 1 :]) or "*"
    tops: Iterator[str] = iter([f"{start}/" if place else ""])
    if glob.has_magic(start):
        tops = glob.iglob(f"{start}/", root_dir=project)  # noqa: PTH207 (root_dir)
    for top in tops:
        for folder in _folders(top, project):
            yield from _names(os.path.join(glob.escape(folder), rest), project)  # noqa: PTH118 (a glob is no path)


def _folders(top: str, project: Path) -> Iterator[str]:
    """A folder and those below it whose names do not begin with a dot, those behind links last."""
    seen: set[str] = set()
    linked = [top]
    for start in linked:
        below = [start]
        while below:
            folder = below.pop()
            real = os.path.realpath(project / folder)
            if real in seen:
                continue
            seen.add(real)
            yield folder
            for name, link in _listed(project / folder):
                (linked if link else below).append(os.path.join(folder, name))  # noqa: PTH118 (as glob gives them)


def _listed(folder: Path) -> list[tuple[str, bool]]:
    """The folders in a folder by name, and whether they are links; none of one that cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return []
    return sorted((entry.name, entry.is_symlink()) for entry in found)


def _found(project: Path, path: Path) -> FoundFile:
    # Relative to the project wherever that is possible, so that a project can be moved and its documents keep
    # their ids.
    locator = os.path.relpath(path, project) if path.is_relative_to(project) else str(path)
    # A name need not be UTF-8, and a locator has to be.
    return FoundFile(path, os.fsencode(Path(locator).as_posix()).decode("utf-8", "backslashreplace"))
