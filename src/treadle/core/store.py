"""Where artifacts lie: one folder of objects named by their digests, read-only, verified on read.

    objects/ab/cdef...   a file of an artifact, or a manifest, as it is
    views/<digest>/      hard links that show one artifact as a folder
    tmp/<process>/       what one process is writing; it holds a lock on the folder, which ends with it

An object is written under a temporary name, synced and renamed, so a name is there whole or not at all.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import BinaryIO

from treadle.core.artifacts import Entry, manifest_bytes, read_manifest
from treadle.core.digest import PREFIX, blake3_bytes, blake3_file, is_digest
from treadle.core.errors import Corrupt, TreadleError, UserError
from treadle.core.intake import Found, KnownFiles, copied, each_file, hashed, plain_files, sync_files, sync_folders

_MANY = 1_000  # objects; to look for more of them, all are listed
_MANIFEST_LIMIT = 512 << 20  # bytes, some five million files; a manifest larger than this is not read


class Store:
    """Objects in a local folder. Safe for many processes: names are content, so writers can only agree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: dict[str, Path] = {}
        self._lock = threading.Lock()
        self._own: tuple[Path, int] | None = None

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        return Store, (self.root,)  # a handle sent to another process opens the folder anew there

    # -- writing

    def new_folder(self, prefix: str = "build-") -> Path:
        """A fresh folder on the store's file system, to be filled and then ``put``; gone when this process is."""
        return Path(tempfile.mkdtemp(prefix=prefix, dir=self._workplace()))

    def put(self, folder: Path) -> str:
        """Move the files under ``folder`` into the store and return the digest of the tree.

        ``TreadleError`` for a link, a device, or a name that is not UTF-8; nothing is stored then. Empty folders are
        left out.
        """
        files = plain_files(folder)
        digests = each_file(hashed, files)
        with self._writing():
            self._adopt([(file.path, digest) for file, digest in zip(files, digests, strict=True)])
        entries = [Entry(file.name, file.status.st_size, digest) for file, digest in zip(files, digests, strict=True)]
        return self._put_manifest(entries)

    def add(self, folder: Path) -> str:
        """Copy the files under ``folder`` into the store and return the digest of the tree; the folder stays.

        Each file is read once, and not at all when it has not changed since it was added before. Errors as ``put``.
        """
        files = plain_files(folder)
        known = KnownFiles(self.root / "cache" / "files", folder)
        here = self._present() if len(files) > _MANY else None
        entries, new = [], []
        for file in files:
            digest = known.digest(file.status)
            if digest is None or not (self.has_object(digest) if here is None else digest in here):
                new.append(file)
            else:
                entries.append(Entry(file.name, file.status.st_size, digest))
        if new:
            entries += self._copy(new, known)
        digest = self._put_manifest(entries)
        known.save()
        return digest

    def _copy(self, files: list[Found], known: KnownFiles) -> list[Entry]:
        """Take copies of files in."""
        building, numbers = self.new_folder("add-"), count()

        def take(file: Found) -> tuple[Entry, str]:
            copy = f"{building}/{next(numbers)}"
            digest, size = copied(file.path, copy)
            if size == file.status.st_size:
                known.learn(file.status, digest)
            return Entry(file.name, size, digest), copy

        try:
            taken = each_file(take, files)
            with self._writing():
                self._adopt([(copy, entry.digest) for entry, copy in taken])
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return [entry for entry, _ in taken]

    def _present(self) -> set[str]:
        """Every object that there is; sooner known than each of many by itself."""
        root = self.root / "objects"
        folders = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
        return {PREFIX + folder + name for folder in folders for name in os.listdir(root / folder)}  # noqa: PTH208 (hot)

    def _put_manifest(self, entries: list[Entry]) -> str:
        data = manifest_bytes(entries)
        if len(data) > _MANIFEST_LIMIT:
            raise UserError(f"{len(entries):,} files are too many for one artifact; make archives of them, or several")
        return self.put_bytes(data)

    def put_bytes(self, data: bytes) -> str:
        """Store one object and return its digest."""
        digest = blake3_bytes(data)
        with self._writing():
            if self.has_object(digest):
                os.utime(self._place(digest))  # young again: a collection leaves alone what was put just now
                return digest
            handle, name = tempfile.mkstemp(prefix="object-", dir=self._workplace())
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            self._adopt([(name, digest)])
        return digest

    def adopt(self, files: Iterable[tuple[Path, str]]) -> None:
        """Move files, whose digests the caller has computed, to their places; also over objects that were damaged."""
        with self._writing():
            self._adopt([(str(path), digest) for path, digest in files], replace=True)

    def _adopt(self, files: list[tuple[str, str]], *, replace: bool = False) -> None:
        """Move files to their places: on the disk before they are named, and named there when this returns."""
        new: dict[str, str] = {}
        for path, digest in files:
            place = self._place(digest)
            size = _size(place)
            if place in new or (not replace and size is not None and size == os.path.getsize(path)):  # noqa: PTH202
                if place not in new:
                    os.utime(place)
                os.unlink(path)  # noqa: PTH108 (hot)
                continue
            new[place] = _sole(path)
        sync_files(list(new.values()), self.root)
        folders = {os.path.dirname(place) for place in new}  # noqa: PTH120 (hot)
        fresh = [folder for folder in folders if not os.path.isdir(folder)]  # noqa: PTH112 (hot)
        for folder in fresh:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103 (hot)
        for place, path in new.items():
            os.replace(path, place)  # noqa: PTH105 (hot)
        sync_folders([*folders, *map(os.path.dirname, fresh)], self.root)

    @contextmanager
    def _writing(self, how: int = fcntl.LOCK_SH) -> Iterator[None]:
        """Keep others from deleting what is being named; ``LOCK_EX`` to be the one who deletes."""
        folder = self.root / "objects"
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    # -- reading

    def has(self, digest: str) -> bool:
        """Whether the artifact's manifest and every file it names are present (their bytes are not read)."""
        try:
            return all(self._object(entry.digest).exists() for entry in self.entries(digest))
        except Corrupt:
            return False

    def has_object(self, digest: str) -> bool:
        """Whether one object is present."""
        return is_digest(digest) and os.path.exists(self._place(digest))  # noqa: PTH110 (hot)

    def read(self, digest: str) -> bytes:
        """The verified bytes of one object; ``Corrupt`` when it is missing or changed."""
        try:
            data = self._object(digest).read_bytes()
        except OSError:
            raise self._missing(digest) from None
        if blake3_bytes(data) != digest:
            raise _changed(digest)
        return data

    def open(self, digest: str) -> BinaryIO:
        """One object, verified before the first byte is handed out."""
        self.check(digest)
        return self._object(digest).open("rb")

    def open_unverified(self, digest: str) -> BinaryIO:
        """One object as it is, for a reader that checks the bytes itself; ``Corrupt`` when it is missing."""
        try:
            return self._object(digest).open("rb")
        except OSError:
            raise self._missing(digest) from None

    def size(self, digest: str) -> int:
        """Bytes of one object; ``Corrupt`` when it is missing."""
        size = _size(str(self._object(digest)))
        if size is None:
            raise self._missing(digest)
        return size

    def entries(self, digest: str) -> tuple[Entry, ...]:
        """The files of an artifact, from its verified manifest."""
        path = self._object(digest)
        if path.exists() and path.stat().st_size > _MANIFEST_LIMIT:
            raise Corrupt(f"object {digest} is too large to be a manifest")
        return read_manifest(self.read(digest))

    def view(self, digest: str) -> Path:
        """A folder that shows the artifact's files, each verified once per process; read-only."""
        known = self._verified.get(digest)
        if known is not None and known.exists():
            return known
        entries = self.entries(digest)
        for entry in entries:
            self.check(entry.digest)
        folder = self.root / "views" / digest.removeprefix(PREFIX)
        if not self._shows(folder, entries):
            self._link(entries, folder)
        self._verified[digest] = folder
        return folder

    def _shows(self, folder: Path, entries: tuple[Entry, ...]) -> bool:
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
        target = self._object(digest)
        return (target.exists() and path.samefile(target)) or blake3_file(path) == digest

    def _link(self, entries: tuple[Entry, ...], folder: Path) -> None:
        building = self.new_folder("view-")
        for entry in entries:
            target = building / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self._object(entry.digest), target)
            except OSError:  # a file system without hard links, or too many of one file
                shutil.copyfile(self._object(entry.digest), target)
                target.chmod(0o444)
        building.chmod(0o755)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            building.rename(folder)
        except OSError:  # another process was first, or what lay there was changed
            if self._shows(folder, entries):
                shutil.rmtree(building, ignore_errors=True)
                return
            folder.rename(self.new_folder("changed-") / folder.name)
            building.rename(folder)

    def check(self, digest: str) -> None:
        """``Corrupt`` unless the object is there and its bytes are those that were stored."""
        try:
            found = blake3_file(self._object(digest))
        except OSError:
            raise self._missing(digest) from None
        if found != digest:
            raise _changed(digest)

    def objects(self) -> Iterator[tuple[str, Path]]:
        """Every object by name, sorted; stray files in the folder come with their path as name."""
        for folder, folders, files in os.walk(self.root / "objects"):
            folders.sort()
            for name in sorted(files):
                yield PREFIX + os.path.basename(folder) + name, Path(folder, name)  # noqa: PTH119 (hot)

    def changed_views(self) -> Iterator[tuple[str, str]]:
        """Views that do not show what their artifact holds, by name, with what is wrong."""
        views = self.root / "views"
        for folder in sorted(views.iterdir()) if views.is_dir() else ():
            try:
                entries = self.entries(PREFIX + folder.name)
            except Corrupt:
                continue  # its objects are what is wrong, and are named themselves
            if not self._shows(folder, entries) and folder.exists():
                yield PREFIX + folder.name, "the folder that shows this artifact holds something else"

    # -- removing

    def delete(self, digests: set[str], *, older_than: float | None = None) -> int:
        """Remove objects and every view that shows them. Only erasure and garbage collection call this.

        With ``older_than`` (seconds since the epoch) what was put since stays. Returns the bytes of what was removed.
        """
        freed = 0
        with self._writing(fcntl.LOCK_EX):
            if older_than is not None:
                digests = {each for each in digests if self._age(each) < older_than}
            self._delete_views(digests)
            for digest in digests:
                path = self._object(digest)
                freed += _size(str(path)) or 0
                path.unlink(missing_ok=True)
                for kept in ("pull", "chunks"):  # what a transfer left of it
                    (self.root / "cache" / kept / digest.removeprefix(PREFIX)).unlink(missing_ok=True)
        return freed

    def _age(self, digest: str) -> float:
        try:
            return self._object(digest).stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def _delete_views(self, digests: set[str]) -> None:
        views = self.root / "views"
        for folder in views.iterdir() if views.is_dir() else ():
            name = PREFIX + folder.name
            try:
                shown = {name, *(entry.digest for entry in self.entries(name))}
            except Corrupt:
                shown = digests
            if shown & digests:
                shutil.rmtree(folder, ignore_errors=True)
                self._verified.pop(name, None)

    # -- temporary folders

    def _workplace(self) -> Path:
        """This process's own temporary folder, locked for as long as it lives."""
        with self._lock:
            if self._own is not None and not self._own[0].exists():  # somebody removed it by hand
                os.close(self._own[1])
                self._own = None
            if self._own is None:
                self._own = self._new_workplace()
            return self._own[0]

    def _new_workplace(self) -> tuple[Path, int]:
        self._tmp.mkdir(parents=True, exist_ok=True)
        while True:
            path = Path(tempfile.mkdtemp(dir=self._tmp))
            descriptor = _locked(path)
            if descriptor is not None and path.exists():
                return path, descriptor
            if descriptor is not None:  # swept away before it was locked
                os.close(descriptor)

    def clear_temporary(self) -> None:
        """Remove what killed writers left behind; what a living process is writing (a server sealing) stays."""
        for path in self._tmp.iterdir() if self._tmp.is_dir() else ():
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
                continue
            if self._own is not None and path == self._own[0]:
                continue
            descriptor = _locked(path)
            if descriptor is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(descriptor)

    def close(self) -> None:
        """Remove this process's temporary folder."""
        with self._lock:
            if self._own is not None:
                shutil.rmtree(self._own[0], ignore_errors=True)
                os.close(self._own[1])
                self._own = None

    @property
    def _tmp(self) -> Path:
        return self.root / "tmp"

    def _object(self, digest: str) -> Path:
        if not is_digest(digest):
            raise Corrupt(f"{digest[:80]!r} does not name an object")
        return Path(self._place(digest))

    def _place(self, digest: str) -> str:
        name = digest.removeprefix(PREFIX)
        return f"{self.root}/objects/{name[:2]}/{name[2:]}"

    def _missing(self, digest: str) -> Corrupt:
        return Corrupt(f"object {digest} is missing from {self.root}; treadle verify says what it was")


def _changed(digest: str) -> Corrupt:
    return Corrupt(f"object {digest} is not what was stored: its bytes changed; run treadle verify")


def _size(path: str) -> int | None:
    """Bytes of a file, or None when there is none."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 (hot)
    except FileNotFoundError:
        return None


def _sole(path: str) -> str:
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


def _locked(folder: Path) -> int | None:
    """An open descriptor with the lock on a folder, or None when another process has it or it is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
