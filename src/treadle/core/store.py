"""Where artifacts lie: one folder of objects named by their digests, read-only, verified on read.

    objects/ab/cdef...          a file of an artifact, or a manifest, as it is
    objects/ab/cdef....sealed   the same, encrypted
    objects/packs/*.pack        many small objects in one file, as they are or encrypted
    encrypted/<key id>          that something may lie encrypted under this key
    views/<digest>/             hard links that show one artifact as a folder
    tmp/<process>/              what one process is writing; it holds a lock on the folder, which ends with it

An object is written under a temporary name, synced and renamed, so a name is there whole or not at all. The name is
the digest of the plain bytes, however they lie.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from treadle.core.artifacts import Entry, manifest_bytes, read_manifest
from treadle.core.cipher import Cipher
from treadle.core.digest import PREFIX, blake3_bytes, is_digest
from treadle.core.errors import Corrupt, UserError
from treadle.core.intake import KnownFiles, found_files, sync_path, uncollected
from treadle.core.loose import Loose, Stored, check_name
from treadle.core.pack import Pack
from treadle.core.packs import Packs, Rewrite
from treadle.core.reader import Reader, no_key
from treadle.core.taking import Incoming, Taking
from treadle.core.views import Views
from treadle.core.workplace import Workplace

FORMAT = 2  # of a store with packs or encrypted objects; one without is of format 1, as before there were any
MANIFEST_LIMIT = 512 << 20  # bytes, some five million files; a manifest larger than this is not read
_NOWHERE = Stored("", 0, encrypted=True)
_TRIES = 3  # to find an object that is being put somewhere else

T = TypeVar("T")


class Store:
    """Objects in a local folder. Safe for many processes: names are content, so writers can only agree."""

    def __init__(self, root: Path, cipher: Cipher | None = None) -> None:
        self.root, self.cipher = root, cipher
        self._verified: dict[str, Path] = {}
        self._workplace = Workplace(root / "tmp")
        self.loose = Loose(root)
        self.packs = Packs(root / "objects" / "packs", self._workplace)
        self.reader = Reader(cipher, self.packs, root / "encrypted")
        self.views = Views(root / "views", self._workplace, self.loose.place)

    def __reduce__(self) -> tuple[type[Store], tuple[Path, Cipher | None]]:
        return Store, (self.root, self.cipher)  # a handle sent to another process opens the folder anew there

    # -- writing

    def new_folder(self, prefix: str = "build-") -> Path:
        """A fresh folder on the store's file system, to be filled and then ``put``; gone when this process is."""
        return self._workplace.new_folder(prefix)

    def put(self, folder: Path) -> str:
        """Move the files under ``folder`` into the store and return the digest of the tree.

        ``TreadleError`` for a link, a device, or a name that is not UTF-8; nothing is stored then. Empty folders are
        left out.
        """
        files = found_files(folder)
        with self._writing():
            entries = Taking(self).take(files, move=True)
            return self._put_manifest(entries)

    def add(self, path: Path) -> str:
        """Copy a file, or the files under a folder, into the store and return the digest of the tree; they stay.

        Each file is read once, and not at all when it has not changed since it was added before. Errors as ``put``.
        """
        with uncollected():
            files = found_files(path)
            known = KnownFiles(self.root / "cache" / "files", path)
            same = known.tree(files)
        with self._writing():
            if same is not None and Taking(self).all_present({bytes.fromhex(same[0].removeprefix(PREFIX)), *same[1]}):
                return same[0]
            entries = Taking(self).take(files, known)
            digest = self._put_manifest(entries)
        known.save(digest)
        return digest

    def _put_manifest(self, entries: list[Entry]) -> str:
        data = manifest_bytes(entries)
        if len(data) > MANIFEST_LIMIT:
            raise UserError(f"{len(entries):,} files are too many for one artifact; make archives of them, or several")
        return self.put_bytes(data)

    def put_bytes(self, data: bytes) -> str:
        """Store one object and return its digest."""
        digest = blake3_bytes(data)
        with self._writing():
            taking = Taking(self)
            if taking.present(digest, len(data)):  # young again: a collection leaves alone what was put just now
                taking.finish()
                return digest
            path = self._workplace.new_file("object-")
            path.write_bytes(data if self.cipher is None else self.cipher.encrypt(data))
            path.chmod(0o444)
            taking.adopt([Incoming(str(path), digest, len(data), self.cipher is not None)])
        return digest

    def adopt(self, files: Iterable[tuple[Path, str]]) -> None:
        """Move files, whose digests the caller has computed, to their places; also over objects that were damaged."""
        incoming = [Incoming(str(path), digest, path.stat().st_size) for path, digest in files]
        with self._writing():
            Taking(self).adopt(incoming, replace=True)

    def adopt_pieces(self, pieces: Iterable[bytes], digest: str) -> None:
        """The same of an object that comes piece by piece, and lies encrypted from the start."""
        if self.cipher is None:
            raise ValueError("a store without a key takes files")
        path = self._workplace.new_file("pieces-")
        with path.open("xb") as file:
            size = self.cipher.encrypt_pieces(pieces, file)
        path.chmod(0o444)
        with self._writing():
            Taking(self).adopt([Incoming(str(path), digest, size, encrypted=True)], replace=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep everyone from putting or deleting."""
        with self._writing(fcntl.LOCK_EX):
            yield

    @contextmanager
    def putting(self) -> Iterator[None]:
        """Keep everyone from deleting."""
        with self._writing():
            yield

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

    def mark(self, *, encrypted: bool) -> None:
        """Say, before the first such object is named, that there are packs, or objects under the key that encrypts."""
        wanted = ["format"]
        if encrypted and self.cipher is not None:
            (self.root / "encrypted").mkdir(exist_ok=True)
            wanted.append(f"encrypted/{self.cipher.key_id.hex()}")
        for name in wanted:
            path, text = self.root / name, f"{FORMAT}\n"
            if path.exists() and path.read_text() == text:
                continue
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            temporary.write_text(text)
            sync_path(temporary)
            temporary.replace(path)
            sync_path(path.parent)

    def unmark(self, keep: str | None) -> None:
        """Say that nothing lies encrypted any more, but under one key."""
        marks = self.root / "encrypted"
        with self.alone():
            for path in list(marks.iterdir()) if marks.is_dir() else ():
                if path.name != keep:
                    path.unlink()

    def check_keys(self) -> None:
        """``UserError`` where something lies encrypted under a key that was not given."""
        marks = self.root / "encrypted"
        for name in sorted(path.name for path in marks.iterdir()) if marks.is_dir() else ():
            if name.startswith(".") or (self.cipher is not None and self.cipher.has(name)):
                continue
            what = f"the store {self.root} is encrypted under the key {name}"
            if self.cipher is None:
                raise no_key(what)
            raise UserError(f"{what}, which `encryption` in treadle.yaml does not give; add it after the key in use")

    # -- reading

    def locate(self, digest: str) -> Iterator[Stored]:
        """Where an object lies, each place that there is; ``Corrupt`` for what is no digest."""
        check_name(digest)
        yield from self.loose.find(digest)
        yield from self.packs.find(digest)

    def has(self, digest: str) -> bool:
        """Whether the artifact's manifest and every file it names are present (their bytes are not read)."""
        try:
            return all(self.has_object(entry.digest) for entry in self.entries(digest))
        except Corrupt:
            return False

    def has_object(self, digest: str) -> bool:
        """Whether one object is present."""
        return is_digest(digest) and next(self.locate(digest), None) is not None

    def read(self, digest: str) -> bytes:
        """The verified bytes of one object; ``Corrupt`` when it is missing or changed."""
        return self._first(digest, self.reader.read)

    def open(self, digest: str) -> BinaryIO:
        """One object, verified before the first byte is handed out."""
        return self._first(digest, self.reader.verified)

    def open_unverified(self, digest: str) -> BinaryIO:
        """One object as it is, for a reader that checks the bytes itself; ``Corrupt`` when it is missing."""
        return self._first(digest, lambda _, stored: self.reader.open(stored))

    def check(self, digest: str) -> None:
        """``Corrupt`` unless the object is there and its bytes are those that were stored."""
        self._first(digest, self.reader.check)

    def size(self, digest: str) -> int:
        """Bytes of one object; ``Corrupt`` when it is missing."""
        return self._first(digest, lambda _, stored: stored.size)

    def _first(self, digest: str, look: Callable[[str, Stored], T]) -> T:
        """What ``look`` says of the first place of an object that is as it should be."""
        problem = None
        for _ in range(_TRIES):
            moved = False
            for stored in self.locate(digest):
                try:
                    return look(digest, stored)
                except FileNotFoundError:  # deleted just now, or put somewhere else
                    moved = True
                except Corrupt as error:
                    problem = error
                except OSError:
                    problem = self._missing(digest)
            if not moved:
                break
        raise problem or self._missing(digest)

    def entries(self, digest: str) -> tuple[Entry, ...]:
        """The files of an artifact, from its verified manifest."""
        if self.size(digest) > MANIFEST_LIMIT:
            raise Corrupt(f"object {digest} is too large to be a manifest")
        return read_manifest(self.read(digest))

    def view(self, digest: str) -> Path:
        """A folder that shows the artifact's files, each verified once per process; read-only.

        What lies as it is is linked there; of the rest there is a copy for as long as this process lives.
        """
        known = self._verified.get(digest)
        if known is not None and known.exists():
            return known
        entries = self.entries(digest)
        if all(self._links(entry.digest) for entry in entries):
            folder = self.views.linked(digest, entries)
        else:
            folder = self.views.copied(digest, entries, self._write)
        self._verified[digest] = folder
        return folder

    def lasts(self, view: Path) -> bool:
        """Whether a view is still there when this process is gone."""
        return not view.is_relative_to(self.root / "tmp")

    def check_files(self, digest: str) -> None:
        """``Corrupt`` unless every file of an artifact is as it was stored; each is read once per process where that
        costs no copy."""
        entries = self.entries(digest)
        if all(next(self.loose.find(entry.digest), _NOWHERE).encrypted is False for entry in entries):
            self.view(digest)
            return
        for entry in entries:
            self.check(entry.digest)

    def _links(self, digest: str) -> bool:
        """Whether a link to an object shows what it is."""
        stored = next(self.loose.find(digest), None)
        return stored is not None and not stored.encrypted and self._is_sound(digest, stored)

    def _write(self, digest: str, target: Path) -> None:
        def write(digest: str, stored: Stored) -> None:
            target.unlink(missing_ok=True)
            self.reader.write(digest, stored, target)

        self._first(digest, write)

    def objects(self) -> Iterator[tuple[str, Stored]]:
        """Every object by name, sorted, and where it lies: by itself, where it does that as well as in a pack."""
        found = dict(self.packs.all())
        found.update((digest, stored) for digest, stored in self.loose.all() if is_digest(digest))
        yield from sorted(found.items())

    def names(self) -> set[str]:
        """The digests of all objects, those included that were left by what was killed."""
        return {name for name, _ in self.objects()}

    def audit(self) -> Iterator[tuple[str, str]]:
        """What is not as it was stored, by name, with what is wrong; reads every byte."""
        changed = "its bytes are not those that were stored"
        for digest, path in self.loose.strays():
            yield digest, f"{path} is a link, or no object; take it away"
        for digest, stored in self.loose.all():
            if is_digest(digest):
                with suppress(FileNotFoundError):  # deleted while we looked
                    if not self._is_sound(digest, stored):
                        yield digest, changed
        packs = Packs(self.root / "objects" / "packs", self._workplace)  # not what was read before
        for pack in packs.current():
            with suppress(FileNotFoundError):
                for raw, data, whole in pack.records():
                    digest, stored = PREFIX + raw.hex(), Stored(str(pack.path), len(data), pack.encrypted, 0)
                    if not whole or not self._is_sound(digest, stored, data):
                        yield digest, changed
        for name, detail in packs.problems():
            yield f"packs/{name}", detail

    def _is_sound(self, digest: str, stored: Stored, data: bytes | None = None) -> bool:
        try:
            if data is None:
                self.reader.check(digest, stored)
            else:
                self.reader.decoded(digest, data, stored)
        except FileNotFoundError:
            raise
        except (Corrupt, OSError):
            return False
        return True

    def changed_views(self) -> Iterator[tuple[str, str]]:
        """Views that do not show what their artifact holds, by name, with what is wrong."""
        yield from self.views.changed(self.entries)

    # -- removing

    def delete(self, digests: set[str], *, older_than: float | None = None) -> int:
        """Remove objects and every view that shows them. Only erasure and garbage collection call this.

        With ``older_than`` (seconds since the epoch) what was put since stays; without, all of it has to go, and a pack
        that hides what is in it is ``Corrupt`` before anything is removed. Returns the bytes of what was removed.
        """
        with self.alone():
            if older_than is None and digests:
                self.require_complete()
                shutil.rmtree(self.root / "cache" / "checkpoints", ignore_errors=True)  # of a training that was cut off
            digests = {each for each in digests if is_digest(each)}
            if older_than is not None:
                digests = {each for each in digests if self._age(each) < older_than}
            self.views.delete(digests, self.entries)
            freed = self.packs.delete(digests)
            for digest in digests:
                freed += self.loose.delete(digest)
                self._verified.pop(digest, None)
                name = digest.removeprefix(PREFIX)
                for kept in (f"pull/{name}", f"pull/{name}.sealed", f"chunks/{name}"):  # what a transfer left of it
                    (self.root / "cache" / kept).unlink(missing_ok=True)
        return freed

    def require_complete(self) -> None:
        """``Corrupt`` where nobody can say what lies here: what is to be erased may be there."""
        self.packs.require_complete()

    def _age(self, digest: str) -> float:
        """When it was put last; infinite when it is not here."""
        times = []
        for stored in self.locate(digest):
            with suppress(FileNotFoundError):
                times.append(os.stat(stored.path).st_mtime)  # noqa: PTH116 (hot)
        return max(times, default=float("inf"))

    def tidy(self) -> None:
        """Put what lies in many small packs into few; what is damaged stays as it is."""
        with self.alone(), suppress(Corrupt):
            self.packs.tidy(lambda pack: self._whole(pack, strict=True))

    def mend(self) -> None:
        """Write packs anew that are damaged, with those objects that are whole. The others are missing then; a pack
        that holds what could not be placed is kept beside, until that is here."""
        with self.alone():
            damaged = [pack for pack in self.packs.current() if pack.damage or not pack.is_tight()]
            for pack in damaged + self.packs.aside():
                if not pack.complete:
                    pack.encrypted = self._is_encrypted(pack)
                self.packs.mend(pack, self._whole(pack, strict=False), partial(self._lies_beside, pack))

    def _lies_beside(self, pack: Pack, digest: str) -> bool:
        """Whether an object lies whole in another place than a pack."""
        others = [stored for stored in self.locate(digest) if stored.path != str(pack.path)]
        return any(self._is_sound(digest, stored) for stored in others)

    def _is_encrypted(self, pack: Pack) -> bool:
        """By what lies in it: where its index is damaged, its head may be as well."""
        for raw, data, _ in pack.records():
            for kind in (False, True):
                if self._is_sound(PREFIX + raw.hex(), Stored(str(pack.path), len(data), kind, 0), data):
                    return kind
        return pack.encrypted

    def _whole(self, pack: Pack, *, strict: bool) -> Rewrite:
        """Leaves out what is damaged, or refuses it by ``Corrupt``."""

        def change(digest: str, data: bytes) -> bytes | None:
            try:
                self.reader.decoded(digest, data, Stored(str(pack.path), len(data), pack.encrypted, 0))
            except Corrupt:
                if strict:
                    raise
                return None
            return data

        return change

    # -- temporary folders

    def clear_temporary(self) -> None:
        """Remove what killed writers left behind; what a living process is writing (a server sealing) stays."""
        self._workplace.clear()

    def close(self) -> None:
        """Remove this process's temporary folder, with the views in it."""
        self._workplace.close()

    def _object(self, digest: str) -> Path:
        check_name(digest)
        return Path(self.loose.place(digest))

    def _missing(self, digest: str) -> Corrupt:
        return Corrupt(f"object {digest} is missing from {self.root}; treadle verify says what it was")
