"""Taking files into a store: small ones into packs when there are many, the others one by one, encrypted where there
is a key. The caller holds the store's lock, so nothing that was found present is deleted meanwhile.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple, Protocol

from blake3 import blake3

from treadle.core.artifacts import Entry
from treadle.core.cipher import Cipher
from treadle.core.digest import PREFIX
from treadle.core.errors import Corrupt
from treadle.core.intake import Found, KnownFiles, copied, each_file, hashed, read_file
from treadle.core.loose import Loose, Stored, sole
from treadle.core.pack import FULL, LARGEST, Pack, PackWriter
from treadle.core.packs import Packs

MANY = 128  # small objects that come together; fewer lie by themselves
_LIST_FROM = 1_000  # files; to look for more of them, all that is there is listed


class Place(Protocol):
    """What is asked of the store that things are taken into."""

    @property
    def cipher(self) -> Cipher | None:
        """What encrypts."""
        ...

    @property
    def loose(self) -> Loose:
        """The objects by themselves."""
        ...

    @property
    def packs(self) -> Packs:
        """Those in packs."""
        ...

    def new_folder(self, prefix: str) -> Path:
        """A temporary folder on its file system."""
        ...

    def mark(self, *, encrypted: bool) -> None:
        """Told before the first pack, or encrypted object, is named."""
        ...


class Incoming(NamedTuple):
    """A file in a temporary folder that is to become an object of ``size`` plain bytes."""

    path: str
    digest: str
    size: int
    encrypted: bool = False


class Taking:
    """One putting of files into a store."""

    def __init__(self, store: Place) -> None:
        self._store, self._cipher = store, store.cipher
        self._touched: set[str] = set()
        self._packed: dict[bytes, tuple[str, int]] | None = None
        self._alone: set[str] = set()

    def take(self, files: Sequence[Found], known: KnownFiles | None = None, *, move: bool = False) -> list[Entry]:
        """Take files in, or copies of them, and say what they are. With ``move`` they may be gone afterwards."""
        entries, new = [], []
        if len(files) >= _LIST_FROM:
            self._packed, self._alone = _index(self._store.packs.current()), self._store.loose.names()
        for file in files:
            digest = known.digest(file.status) if known is not None else None
            if digest is not None and self.present(digest, file.status.st_size):
                entries.append(Entry(file.name, file.status.st_size, digest))
            else:
                new.append(file)
        small = [file for file in new if file.status.st_size < LARGEST]
        if len(small) >= MANY:
            entries += self._pack(small, known)
            new = [file for file in new if file.status.st_size >= LARGEST]
        if new:
            entries += self._move(new) if move and self._cipher is None else self._copy(new, known)
        self.finish()
        return entries

    def _pack(self, files: list[Found], known: KnownFiles | None) -> list[Entry]:
        """Small files into packs, each read once."""
        entries = []
        with _Filling(self._store) as filling:
            for file in files:
                data = read_file(file.path, file.status.st_size)
                raw = blake3(data).digest()
                if known is not None and len(data) == file.status.st_size:
                    known.learn(file.status, raw)
                digest = PREFIX + raw.hex()
                entries.append(Entry(file.name, len(data), digest))
                if not self.present(digest, len(data), raw):
                    filling.add(raw, data)
        return entries

    def _move(self, files: list[Found]) -> list[Entry]:
        digests = each_file(hashed, files)
        entries = [Entry(file.name, file.status.st_size, digest) for file, digest in zip(files, digests, strict=True)]
        self._name(
            [Incoming(file.path, entry.digest, entry.size) for file, entry in zip(files, entries, strict=True)],
            replace=False,
        )
        return entries

    def _copy(self, files: list[Found], known: KnownFiles | None) -> list[Entry]:
        building, numbers = self._store.new_folder("add-"), count()

        def take(file: Found) -> tuple[Entry, Incoming]:
            copy = f"{building}/{next(numbers)}"
            digest, size = copied(file.path, copy, self._cipher)
            if known is not None and size == file.status.st_size:
                known.learn(file.status, _raw(digest))
            return Entry(file.name, size, digest), Incoming(copy, digest, size, self._cipher is not None)

        try:
            taken = each_file(take, files)
            self._name([incoming for _, incoming in taken], replace=False)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return [entry for entry, _ in taken]

    def adopt(self, files: Sequence[Incoming], *, replace: bool = False) -> None:
        """Move files in whose digests are known; with ``replace`` over what is there, for it is damaged."""
        if replace:
            files = [file for file in files if not self._mend(file)]
        small = [file for file in files if file.size < LARGEST]
        if len(small) >= MANY:
            with _Filling(self._store) as filling:
                for file in small:
                    filling.add(_raw(file.digest), Path(file.path).read_bytes(), encrypted=file.encrypted)
            for file in small:
                os.unlink(file.path)  # noqa: PTH108 (hot)
                for stored in self._store.loose.find(file.digest) if replace else ():
                    os.unlink(stored.path)  # noqa: PTH108 (hot)
            files = [file for file in files if file.size >= LARGEST]
        if files:
            self._name(list(files), replace=replace)
        self.finish()

    def _mend(self, file: Incoming) -> bool:
        """Put right bytes in the place of damaged ones in a pack; False where it is in none."""
        raw, found = _raw(file.digest), False
        for pack in self._store.packs.current():
            if pack.find(raw) is None:
                continue
            data = Path(file.path).read_bytes()
            with suppress(Corrupt):  # of another length: the index is damaged too
                pack.overwrite(raw, self._as_in(pack, file, data))
                found = True
        if found:
            os.unlink(file.path)  # noqa: PTH108 (hot)
            self._store.loose.delete(file.digest)
        return found

    def _as_in(self, pack: Pack, file: Incoming, data: bytes) -> bytes:
        if self._cipher is None or file.encrypted is pack.encrypted:
            return data
        return self._cipher.encrypt(data) if pack.encrypted else self._cipher.decrypt(data, file.path)

    def _name(self, files: list[Incoming], *, replace: bool) -> None:
        """Files to places of their own."""
        new: dict[str, str] = {}
        old: list[str] = []
        for file in files:
            encrypted = self._cipher is not None
            place = self._store.loose.place(file.digest, encrypted=encrypted)
            if place in new or (not replace and self.present(file.digest, file.size)):
                os.unlink(file.path)  # noqa: PTH108 (hot)
                continue
            if encrypted and not file.encrypted:
                new[place] = self._encrypted(file)
            else:
                new[place] = file.path if file.encrypted else sole(file.path)
            old.append(self._store.loose.place(file.digest, encrypted=not encrypted))
        if new and self._cipher is not None:
            self._store.mark(encrypted=True)
        self._store.loose.name([(path, place) for place, path in new.items()])
        for path in old if replace else ():
            Path(path).unlink(missing_ok=True)

    def _encrypted(self, file: Incoming) -> str:
        target = file.path + ".sealed"
        digest, _ = copied(file.path, target, self._cipher)
        if digest != file.digest:
            raise Corrupt(f"{file.path} changed while it was put into the store; nothing was stored")
        os.unlink(file.path)  # noqa: PTH108 (hot)
        return target

    # -- what is there already

    def all_present(self, names: set[bytes]) -> bool:
        """Whether every one of many objects is there; from now on they count as put just now."""
        left = set(names)
        for pack in self._store.packs.current():
            held = left & pack.names()
            if held:
                self._touched.add(str(pack.path))
                left -= held
        for raw in left:
            stored = next(self._store.loose.find(PREFIX + raw.hex()), None)
            if stored is None:
                return False
            os.utime(stored.path)
        self.finish()
        return True

    def present(self, digest: str, size: int, raw: bytes = b"") -> bool:
        """Whether an object is there with all its bytes; from now on it counts as put just now."""
        if self._packed is not None:
            found = self._packed.get(raw or _raw(digest))
            if found is not None and found[1] == size:
                self._touched.add(found[0])
                return True
            if digest not in self._alone:
                return False
        for stored in self._places(digest):
            if stored.is_of(size):
                if stored.start is None:
                    os.utime(stored.path)
                else:
                    self._touched.add(stored.path)
                return True
        return False

    def _places(self, digest: str) -> Sequence[Stored]:
        if self._packed is not None:
            return tuple(self._store.loose.find(digest))
        return (*self._store.loose.find(digest), *self._store.packs.find(digest))

    def finish(self) -> None:
        """Make the packs young in which something was found."""
        for path in self._touched:
            os.utime(path)
        self._touched.clear()


def _raw(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix(PREFIX))


def _index(packs: list[Pack]) -> dict[bytes, tuple[str, int]]:
    """Pack and plain size of every packed object: sooner made than each of many is looked for."""
    found: dict[bytes, tuple[str, int]] = {}
    for pack in packs:
        path = str(pack.path)
        for raw, start, length in pack:
            found[raw] = (path, Stored(path, length, pack.encrypted, start).size)
    return found


class _Filling:
    """Packs being filled, each named when it is full; what was begun is thrown away when something fails."""

    def __init__(self, store: Place) -> None:
        self._store = store
        self._writer: PackWriter | None = None

    def __enter__(self) -> _Filling:
        return self

    def add(self, raw: bytes, data: bytes, *, encrypted: bool = False) -> None:
        if self._writer is not None and raw in self._writer:
            return
        cipher = self._store.cipher
        if self._writer is not None and self._writer.size + len(data) > FULL:
            self._end()
        if self._writer is None:
            self._writer = self._store.packs.writer(encrypted=cipher is not None)
        self._writer.add(raw, data if cipher is None or encrypted else cipher.encrypt(data))

    def _end(self) -> None:
        if self._writer is not None:
            self._store.mark(encrypted=self._store.cipher is not None)
            self._store.packs.add(self._writer)
            self._writer = None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self._end()
        elif self._writer is not None:
            self._writer.discard()
