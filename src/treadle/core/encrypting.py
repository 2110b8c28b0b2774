"""Encrypting what a store holds, under another key than before, or not any more.

Object by object and pack by pack: what is new is on the disk and named before what is old goes, so it may be killed at
any moment and goes on where it was. Others may read and put meanwhile.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from blake3 import blake3

from treadle.core.bucket_store import BucketStore
from treadle.core.cipher import HEADER, MAKE_KEY, Cipher
from treadle.core.digest import PREFIX, is_digest
from treadle.core.errors import Corrupt, UserError
from treadle.core.loose import Stored
from treadle.core.pack import Pack
from treadle.core.reader import changed
from treadle.core.remote import Remote, digest_in
from treadle.core.sealed_remote import seal_again
from treadle.core.store import Store

_AT_ONCE = 256  # objects that are put on the disk together


@dataclass
class Recoded:
    """What was written anew. ``problems`` are damaged objects, which stay as they are."""

    objects: int = 0
    bytes: int = 0
    key: str | None = None
    problems: dict[str, str] = field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        """As JSON."""
        problems = [{"ref": digest, "detail": detail} for digest, detail in sorted(self.problems.items())]
        figures = {"key": self.key, "objects": self.objects, "bytes": self.bytes}
        return {"ok": not self.problems, **figures, "problems": problems}


def encrypt(store: Store, *, off: bool = False, said: Callable[[int], object] = lambda _: None) -> Recoded:
    """Write anew whatever does not lie under the first key; with ``off``, whatever lies encrypted.

    ``said`` is told how many objects are done. ``UserError`` where a key is missing.
    """
    if isinstance(store, BucketStore):
        done = encrypt(store.local, off=off, said=said)
        return encrypt_remote(store.bucket.remote, store.cipher, off=off, done=done)
    if store.cipher is None:
        raise _no_key()
    done = Recoded(key=None if off else store.cipher.key_id.hex())
    work = _Recoding(store, store.cipher, off, done)
    if not off:
        store.mark(encrypted=True)
    loose = work.loose()
    while few := tuple(islice(loose, _AT_ONCE)):
        work.write(few)
        said(done.objects)
    for pack in list(store.packs.current()):
        if work.concerns(pack):
            work.rewrite(pack)
            said(done.objects)
    for kept in ("pull", "checkpoints"):  # pieces, replies and unfinished training as they lay before
        shutil.rmtree(store.root / "cache" / kept, ignore_errors=True)
    if not off:
        store.views.delete_linked()
    if not done.problems:
        store.unmark(keep=done.key)
    return done


def encrypt_remote(remote: Remote, cipher: Cipher | None, *, off: bool = False, done: Recoded | None = None) -> Recoded:
    """The same of what lies at a remote, or in a bucket; added to what is ``done``."""
    if cipher is None:
        raise _no_key()
    done = done or Recoded(key=None if off else cipher.key_id.hex())
    for again in seal_again(remote, cipher, off=off):
        if again.bytes is not None:
            done.objects += 1
            done.bytes += again.bytes
        if again.problem:
            done.problems[digest_in(again.name)] = again.problem
    return done


def _no_key() -> UserError:
    return UserError(
        "treadle.yaml names no key; give one, as in: encryption: ${env:NAME}, where NAME holds what this prints: "
        + MAKE_KEY
    )


class _Recoding:
    def __init__(self, store: Store, cipher: Cipher, off: bool, done: Recoded) -> None:
        self._store, self._cipher, self._off, self._done = store, cipher, off, done

    def loose(self) -> Iterator[tuple[str, Stored]]:
        """The objects by themselves that are to be written anew."""
        for digest, stored in self._store.loose.all():
            with suppress(FileNotFoundError):
                if is_digest(digest) and (stored.encrypted if self._off else not self._is_current(stored)):
                    yield digest, stored

    def _is_current(self, stored: Stored) -> bool:
        if not stored.encrypted:
            return False
        with open(stored.path, "rb", buffering=0) as file:  # noqa: PTH123 (hot)
            return self._cipher.is_current(file.read(HEADER))

    def write(self, few: tuple[tuple[str, Stored], ...]) -> None:
        """Some of them."""
        folder, made, old = self._store.new_folder("encrypt-"), [], []
        try:
            with self._store.putting():
                for number, (digest, stored) in enumerate(few):
                    target = folder / str(number)
                    with suppress(FileNotFoundError):  # deleted meanwhile
                        try:
                            self._copy(digest, stored, target)
                        except Corrupt as error:
                            self._done.problems[digest] = str(error)
                            continue
                        os.utime(target, (stored.modified, stored.modified))
                        made.append((str(target), self._store.loose.place(digest, encrypted=not self._off)))
                        old.append(stored.path)
                        self._done.bytes += stored.length
                self._store.loose.name(made)
                for path in set(old) - {place for _, place in made}:
                    Path(path).unlink(missing_ok=True)
            self._done.objects += len(made)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _copy(self, digest: str, stored: Stored, target: Path) -> None:
        if self._off:
            self._store.reader.write(digest, stored, target)
        else:
            hasher = blake3()
            with self._store.reader.open(stored) as source, target.open("xb", buffering=0) as file:
                self._cipher.encrypt_file(source, file, hasher.update)
            if PREFIX + hasher.hexdigest() != digest:
                raise changed(digest)
        target.chmod(0o444)

    def concerns(self, pack: Pack) -> bool:
        """Whether something in a pack is to be written anew."""
        if self._off or not pack.encrypted:
            return pack.encrypted is self._off
        return not all(self._cipher.is_current(data[:HEADER]) for _, data, _ in pack.records())

    def rewrite(self, pack: Pack) -> None:
        """A whole pack, or nothing of it where something in it is damaged."""

        def change(digest: str, data: bytes) -> bytes:
            plain = self._store.reader.decoded(digest, data, Stored(str(pack.path), len(data), pack.encrypted, 0))
            return plain if self._off else self._cipher.encrypt(plain)

        with self._store.alone():
            try:
                if pack.damage:
                    raise Corrupt(f"{pack.path}: {pack.damage}")
                self._store.packs.rewrite([pack], change, encrypted=not self._off)
            except FileNotFoundError:  # written anew by somebody else; the next call looks at that
                return
            except Corrupt as error:
                self._done.problems[f"packs/{pack.path.name}"] = str(error)
                return
        self._done.objects += len(pack)
        self._done.bytes += pack.bytes
