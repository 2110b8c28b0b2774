"""Where artifacts lie: one folder of objects named by their digests, read-only, verified on read.

    objects/ab/cdef...   a file of an artifact, or a manifest, as it is
    views/<digest>/      hard links that show one artifact as a folder
    tmp/                 what is being written; whatever a killed process left there is nobody's

An object is written under a temporary name, synced and renamed, so a name is there whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from treadle.core.artifacts import Entry, digest_of, manifest_bytes, read_manifest
from treadle.core.digest import PREFIX, blake3_bytes, blake3_file
from treadle.core.errors import Corrupt, TreadleError

_MANIFEST_LIMIT = 64 << 20  # bytes; a manifest larger than this is not read


class Store:
    """Objects in a local folder. Safe for many processes: names are content, so writers can only agree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: dict[str, Path] = {}

    # -- writing

    def new_folder(self) -> Path:
        """A fresh folder on the store's file system, to be filled and then ``put``."""
        self._tmp.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="build-", dir=self._tmp))

    def put(self, folder: Path) -> str:
        """Move the files under ``folder`` into the store and return the digest of the tree. Links are refused."""
        entries = []
        for path in sorted(folder.rglob("*")):
            if path.is_symlink():
                raise TreadleError(f"{path} is a link; an artifact holds plain files only")
            if path.is_file():
                digest = blake3_file(path)
                entries.append(Entry(path.relative_to(folder).as_posix(), path.stat().st_size, digest))
                self._adopt(path, digest)
        data = manifest_bytes(entries)
        self.put_bytes(data)
        return digest_of(entries)

    def put_bytes(self, data: bytes) -> str:
        """Store one object and return its digest."""
        digest = blake3_bytes(data)
        if not self._object(digest).exists():
            self._tmp.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix="object-", dir=self._tmp)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            self._adopt(Path(name), digest)
        return digest

    def _adopt(self, path: Path, digest: str) -> None:
        target = self._object(digest)
        if target.exists():
            path.unlink()
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        path.chmod(0o444)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path.replace(target)

    # -- reading

    def has(self, digest: str) -> bool:
        """Whether the artifact's manifest and every file it names are present (their bytes are not read)."""
        try:
            return all(self._object(entry.digest).exists() for entry in self.entries(digest))
        except Corrupt:
            return False

    def has_object(self, digest: str) -> bool:
        """Whether one object is present."""
        return self._object(digest).exists()

    def read(self, digest: str) -> bytes:
        """The verified bytes of one object; ``Corrupt`` when it is missing or changed."""
        path = self._object(digest)
        try:
            data = path.read_bytes()
        except OSError:
            raise Corrupt(
                f"object {digest} is missing from {self.root}; treadle verify says what it was"
            ) from None
        if blake3_bytes(data) != digest:
            raise Corrupt(f"object {digest} is not what was stored: its bytes changed; run treadle verify")
        return data

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
        if not folder.exists():
            self._link(entries, folder)
        self._verified[digest] = folder
        return folder

    def _link(self, entries: tuple[Entry, ...], folder: Path) -> None:
        building = self.new_folder()
        for entry in entries:
            target = building / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(self._object(entry.digest), target)
            except OSError:  # a file system without hard links
                shutil.copyfile(self._object(entry.digest), target)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            building.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(building, ignore_errors=True)

    def check(self, digest: str) -> None:
        """``Corrupt`` unless the object is there and its bytes are those that were stored."""
        path = self._object(digest)
        if not path.exists():
            raise Corrupt(f"object {digest} is missing from {self.root}; treadle verify says what it was")
        if blake3_file(path) != digest:
            raise Corrupt(f"object {digest} is not what was stored: its bytes changed; run treadle verify")

    def objects(self) -> Iterator[tuple[str, Path]]:
        """Every object by name, sorted; stray files in the folder come with their path as name."""
        root = self.root / "objects"
        if not root.is_dir():
            return
        for path in sorted(root.rglob("*")):
            if path.is_file():
                yield PREFIX + path.parent.name + path.name, path

    # -- removing

    def delete(self, digests: set[str]) -> None:
        """Remove objects and every view that shows them. Only erasure and garbage collection call this."""
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
        for digest in digests:
            self._object(digest).unlink(missing_ok=True)

    def clear_temporary(self) -> None:
        """Remove what killed writers left behind. The caller holds the project's lock."""
        shutil.rmtree(self._tmp, ignore_errors=True)

    @property
    def _tmp(self) -> Path:
        return self.root / "tmp"

    def _object(self, digest: str) -> Path:
        name = digest.removeprefix(PREFIX)
        return self.root / "objects" / name[:2] / name[2:]
