"""Views: artifacts shown as folders, fit for memory maps and for libraries that take a path.

views/<digest>/               hard links to the objects; costs nothing, and stays
tmp/<process>/views/<digest>/ plain copies of what lies encrypted or in packs; gone when the process is
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from treadle.core.artifacts import Entry
from treadle.core.digest import PREFIX, blake3_file
from treadle.core.errors import Corrupt, TreadleError
from treadle.core.intake import plain_files
from treadle.core.workplace import Workplace

_OWN = "views"  # in a process's own folder

Entries = Callable[[str], tuple[Entry, ...]]
Write = Callable[[str, Path], None]


class Views:
    """The folders that show artifacts. ``place`` says where an object lies by itself, as it is."""

    def __init__(self, folder: Path, workplace: Workplace, place: Callable[[str], str]) -> None:
        self._folder, self._workplace, self._place = folder, workplace, place

    def linked(self, digest: str, entries: tuple[Entry, ...]) -> Path:
        """A view of hard links, made unless it is there as it should be. The caller has checked the objects."""
        folder = self._folder / digest.removeprefix(PREFIX)
        if not self.shows(folder, entries):
            self._link(entries, folder)
        return folder

    def copied(self, digest: str, entries: tuple[Entry, ...], write: Write) -> Path:
        """A view of this process's own; ``write`` puts the checked bytes of an object into a file."""
        folder = self._workplace.path / _OWN / digest.removeprefix(PREFIX)
        building = self._workplace.new_folder("view-")
        for entry in entries:
            target = building / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            write(entry.digest, target)
            target.chmod(0o444)
        building.chmod(0o755)
        folder.parent.mkdir(exist_ok=True)
        try:
            building.rename(folder)
        except OSError:  # another thread was first
            shutil.rmtree(building, ignore_errors=True)
        return folder

    def shows(self, folder: Path, entries: tuple[Entry, ...]) -> bool:
        """Whether a folder holds these files, no other bytes and no other file."""
        try:
            found = {file.name: Path(file.path) for file in plain_files(folder)}
            return found.keys() == {entry.path for entry in entries} and all(
                self._is(found[entry.path], entry.digest) for entry in entries
            )
        except (OSError, TreadleError):
            return False

    def _is(self, path: Path, digest: str) -> bool:
        """Whether a file is an object, by another name or by its bytes."""
        target = Path(self._place(digest))
        return (target.exists() and path.samefile(target)) or blake3_file(path) == digest

    def _link(self, entries: tuple[Entry, ...], folder: Path) -> None:
        building = self._workplace.new_folder("view-")
        for entry in entries:
            target = building / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self._place(entry.digest), target)
            except OSError:  # a file system without hard links, or too many of one file
                shutil.copyfile(self._place(entry.digest), target)
                target.chmod(0o444)
        building.chmod(0o755)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            building.rename(folder)
        except OSError:  # another process was first, or what lay there was changed
            if self.shows(folder, entries):
                shutil.rmtree(building, ignore_errors=True)
                return
            folder.rename(self._workplace.new_folder("changed-") / folder.name)
            building.rename(folder)

    def changed(self, entries_of: Entries) -> Iterator[tuple[str, str]]:
        """Views that do not show what their artifact holds, by name, with what is wrong."""
        for folder in sorted(self._folder.iterdir()) if self._folder.is_dir() else ():
            try:
                entries = entries_of(PREFIX + folder.name)
            except Corrupt:
                continue  # its objects are what is wrong, and are named themselves
            if not self.shows(folder, entries) and folder.exists():
                yield PREFIX + folder.name, "the folder that shows this artifact holds something else"

    def delete(self, digests: set[str], entries_of: Entries) -> None:
        """Remove each view that shows one of these objects, those of other processes too."""
        kept = self._folder.iterdir() if self._folder.is_dir() else ()
        for folder in (*kept, *self._workplace.everyones(_OWN)):
            name = PREFIX + folder.name
            try:
                shown = {name, *(entry.digest for entry in entries_of(name))}
            except Corrupt:
                shown = digests
            if shown & digests:
                shutil.rmtree(folder, ignore_errors=True)

    def delete_linked(self) -> None:
        """Remove those that stay: they hold what is to lie encrypted."""
        shutil.rmtree(self._folder, ignore_errors=True)
