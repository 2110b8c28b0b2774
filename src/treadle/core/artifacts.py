"""An artifact: an immutable tree of files named by the BLAKE3 of its manifest.

The manifest lists path, size and digest of every file, so the name does not depend on how the bytes are packed or
stored. The ids of the documents an artifact was made from are a file of the tree (``documents.ids``), so the name
covers its lineage as well.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, Generic, Protocol, Self, TypeVar

from treadle.core.digest import blake3_bytes, canonical_json, is_digest
from treadle.core.document_ids import ID_BYTES, DocumentIds, StoredIds, holds
from treadle.core.errors import Corrupt, TreadleError

MANIFEST_FORMAT = 1
DOCUMENT_IDS = "documents.ids"


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One file of an artifact: POSIX path, size in bytes, digest of its bytes."""

    path: str
    size: int
    digest: str


def manifest_bytes(entries: Iterable[Entry]) -> bytes:
    """The canonical manifest whose BLAKE3 names the artifact."""
    files = sorted([entry.path, entry.size, entry.digest] for entry in entries)
    return canonical_json({"files": files, "format": MANIFEST_FORMAT})


def read_manifest(data: bytes) -> tuple[Entry, ...]:
    """Entries of a manifest; ``Corrupt`` when it is none, is of another format, or names a path outside its tree."""
    try:
        manifest = json.loads(data)
        if manifest["format"] != MANIFEST_FORMAT:
            raise Corrupt(f"manifest of format {manifest['format']}; this Treadle reads format {MANIFEST_FORMAT}")
        files: list[Any] = [(path, size, digest) for path, size, digest in manifest["files"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Corrupt(f"not an artifact's manifest: {error}") from None
    entries, paths = [], set()
    for path, size, digest in files:
        if type(size) is not int or size < 0 or not isinstance(path, str):
            raise Corrupt("not an artifact's manifest: expected path, size and digest of each file")
        if not isinstance(digest, str) or not is_digest(digest):
            raise Corrupt(f"manifest names {str(digest)[:80]!r}, which is not a digest")
        check_path(path)
        entries.append(Entry(path, size, digest))
        paths.add(path)
    folders = {parent.as_posix() for path in paths for parent in PurePosixPath(path).parents}
    if len(paths) < len(entries) or paths & folders:
        raise Corrupt("manifest names one path twice")
    return tuple(entries)


def check_path(path: str) -> None:
    """Refuse a path that could leave the artifact's folder, or that has another spelling."""
    parts = PurePosixPath(path)
    if (
        path in ("", ".")
        or parts.is_absolute()
        or ".." in parts.parts
        or str(parts) != path
        or "\\" in path
        or "\0" in path
    ):
        raise Corrupt(f"manifest names {path!r}, which is not a path inside the artifact")


class Objects(Protocol):
    """What an artifact asks of the place it lies in."""

    def entries(self, digest: str) -> tuple[Entry, ...]:
        """The files of an artifact."""
        ...

    def read(self, digest: str) -> bytes:
        """The verified bytes of one file."""
        ...

    def open(self, digest: str) -> BinaryIO:
        """One verified file."""
        ...

    def view(self, digest: str) -> Path:
        """A verified folder that shows an artifact."""
        ...

    def lasts(self, view: Path) -> bool:
        """Whether a view is still there when this process is gone."""
        ...

    def check_files(self, digest: str) -> None:
        """Read every file of an artifact, or know that this process did."""
        ...

    def new_folder(self) -> Path:
        """A folder to fill."""
        ...

    def put(self, folder: Path) -> str:
        """Take a filled folder in and name it."""
        ...


class Artifact:
    """A lazy handle: knows its digest and its store, reads bytes only when asked, and verifies what it reads."""

    kind: ClassVar[str] = "artifact"

    def __init__(self, digest: str, store: Objects) -> None:
        self.digest = digest
        self.store = store

    def __repr__(self) -> str:
        return f"<{self.kind} {self.digest[:11]}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Artifact) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def pending(self) -> bool:
        """True for the stand-in that a plan uses for an artifact that does not exist yet."""
        return not self.digest

    def entries(self) -> tuple[Entry, ...]:
        """The files in it, by path."""
        return self.store.entries(self.digest)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.entries())

    def open(self, name: str) -> BinaryIO:
        """One file, verified before the first byte is handed out; ``KeyError`` when there is no such file."""
        return self.store.open(self._entry(name).digest)

    def path(self, name: str | None = None) -> Path:
        """A verified, read-only folder with the files as they are (or one file in it), fit for mmap."""
        folder = self.store.view(self.digest)
        if name is None:
            return folder
        return folder / self._entry(name).path

    def shown(self, name: str) -> str:
        """Where a person finds one file: its path, or the command that writes it out where no path lasts."""
        path = self.path(name)
        return str(path) if self.store.lasts(path) else f"treadle export folder {self.digest} --out DIR, then {name}"

    def check(self) -> Self:
        """Itself; ``Corrupt`` unless every file is there as it was stored."""
        self.store.check_files(self.digest)
        return self

    def _entry(self, name: str) -> Entry:
        for entry in self.entries():
            if entry.path == name:
                return entry
        raise KeyError(f"{self!r} holds no {name!r}")

    def has(self, name: str) -> bool:
        """Whether a file of that path is in it."""
        return any(entry.path == name for entry in self.entries())

    def read_json(self, name: str) -> Any:
        """One file parsed as JSON."""
        return json.loads(self.store.read(self._entry(name).digest))

    def document_ids(self) -> Sequence[str]:
        """Sorted ids of the documents it was made from; empty when it was made from none."""
        if not self.has(DOCUMENT_IDS):
            return StoredIds()
        return StoredIds(self.store.read(self._entry(DOCUMENT_IDS).digest))

    def document_count(self) -> int:
        """How many documents it was made from, from the manifest alone."""
        return sum(entry.size // ID_BYTES for entry in self.entries() if entry.path == DOCUMENT_IDS)

    def has_document(self, document: str) -> bool:
        """Whether a document is among those it was made from, by binary search over the sorted ids."""
        if not self.has(DOCUMENT_IDS):
            return False
        return holds(self.store.read(self._entry(DOCUMENT_IDS).digest), document)


A = TypeVar("A", bound=Artifact)


class Builder(Generic[A]):
    """A folder being filled; ``commit`` turns it into an artifact, leaving the block without it throws it away."""

    def __init__(self, kind: type[A], store: Objects) -> None:
        self.kind = kind
        self.path = store.new_folder()
        self._store = store
        self._documents = DocumentIds()
        self._artifact: A | None = None

    def __enter__(self) -> Builder[A]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def add_documents(self, ids: Iterable[str]) -> None:
        """Name documents that this artifact is made from."""
        self._documents.update(ids)

    def commit(self) -> A:
        """Move the files into the store and return the handle. The folder is gone afterwards."""
        if self._artifact is None:
            if self._documents:
                with (self.path / DOCUMENT_IDS).open("wb") as file:
                    file.writelines(self._documents.sorted())
            self._artifact = self.kind(self._store.put(self.path), self._store)
            shutil.rmtree(self.path, ignore_errors=True)
        return self._artifact

    @property
    def artifact(self) -> A:
        """What ``commit`` made."""
        if self._artifact is None:
            raise TreadleError(f"the {self.kind.kind} was never committed")
        return self._artifact


def digest_of(entries: Iterable[Entry]) -> str:
    """The digest that names a tree of these files."""
    return blake3_bytes(manifest_bytes(entries))
