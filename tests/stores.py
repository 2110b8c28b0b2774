"""Stores of each kind that there is, so that one suite runs over all; and what a vandal does to what lies in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from treadle.core import taking
from treadle.core.bucket_store import BucketStore
from treadle.core.cipher import Cipher, open_cipher
from treadle.core.keys import Keys
from treadle.core.loose import Stored
from treadle.core.remote import place as in_bucket
from treadle.core.store import Store
from treadle.core.workspace import Workspace

KEY = bytes(range(32))


@dataclass(frozen=True)
class Kind:
    """How objects lie: encrypted or as they are; small ones in packs, however few, or each by itself."""

    name: str
    encrypted: bool = False
    packed: bool = False
    bucket: str = ""  # its URL, where objects lie in one

    @property
    def cipher(self) -> Cipher | None:
        """What encrypts."""
        return open_cipher("${env:WRITER_KEY}", Path()) if self.encrypted else None

    def open(self, root: Path) -> Store:
        """The store in a folder, as a process of its own would open it."""
        local = Store(root, self.cipher)
        return BucketStore(local, self.bucket, Keys(root / "keys").public) if self.bucket else local

    def workspace(self, root: Path) -> Workspace:
        """A record over it."""
        return Workspace(root, cipher=self.cipher, bucket=self.bucket or None)

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Have small objects packed from now on, in this process and in those that it starts."""
        patch.setenv("WRITER_STORE", self.name)
        patch.setenv("WRITER_KEY", KEY.hex())
        patch.setenv("WRITER_BUCKET", self.bucket)
        if self.packed:
            patch.setattr(taking, "MANY", 1)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("plain"),
        Kind("packed", packed=True),
        Kind("encrypted", encrypted=True),
        Kind("packed-encrypted", encrypted=True, packed=True),
    )
}
IN_A_BUCKET = {kind.name: kind for kind in (Kind("bucket"), Kind("bucket-encrypted", encrypted=True))}


def stored_at(store: Store, digest: str) -> Stored:
    """Where an object lies."""
    return next(store.locate(digest))


def damage(store: Store, digest: str, at: int = 1) -> Callable[[], None]:
    """Change a bit of what lies there; returns what puts it right again."""
    if isinstance(store, BucketStore):
        return _damage_there(store, digest, at)
    stored = stored_at(store, digest)
    place = (stored.start or 0) + at % stored.length
    with _writable(Path(stored.path)).open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        _put(file.name, place, byte ^ 1)
    return lambda: _put(stored.path, place, byte)


def _damage_there(store: BucketStore, digest: str, at: int) -> Callable[[], None]:
    remote, name = store.bucket.remote, in_bucket("objects", digest)
    data = remote.read(name)
    at %= len(data)
    remote.write(name, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    remove(store.local, digest)  # or the copy here would be read
    return lambda: remote.write(name, data)


def _put(path: str, place: int, byte: int) -> None:
    with open(path, "r+b") as file:  # noqa: PTH123 (hot)
        file.seek(place)
        file.write(bytes([byte]))


def _writable(path: Path) -> Path:
    path.chmod(0o644)
    return path


def remove(store: Store, digest: str) -> None:
    """Take one object away, whatever lies beside it."""
    if isinstance(store, BucketStore):
        store.bucket.remote.delete(in_bucket("objects", digest))
        store.bucket.forget()
        store = store.local
    store.loose.delete(digest)
    store.packs.delete([digest])


def make_old(store: Store, digest: str, time: float = 0) -> None:
    """Make an object look as if it had been put at that time."""
    os.utime(stored_at(store, digest).path, (time, time))


def everything(root: Path) -> bytes:
    """All the bytes of all the files of a store."""
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


def everywhere(store: Store) -> bytes:
    """The same, with all the bytes in its bucket."""
    remote = store.bucket.remote if isinstance(store, BucketStore) else None
    there = b"".join(remote.read(name) for name in remote.names("")) if remote is not None else b""
    return everything(store.root) + there
