"""A store in a bucket. What is there counts; the folder here is a copy of some of it, which may be thrown away.

It lies there as at a remote, what is longer than 4 MiB in chunks: so what is sent goes on where it was cut off, is sent
and fetched side by side in bounded memory, and is made young again by one small request; and a bucket is a remote to
`treadle pull` from, too.

What is put is acknowledged when the bucket has it. What is read comes from the copy here, checked as in any store, or
from the bucket. What is there, is listed, verified and deleted is a matter of the bucket alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, TypeVar

from treadle.core.artifacts import Entry
from treadle.core.bucket import Bucket, SentChunks
from treadle.core.digest import is_digest
from treadle.core.errors import Corrupt, UserError
from treadle.core.known import CachedLists, Known
from treadle.core.loose import Stored, check_name
from treadle.core.remote import place
from treadle.core.sealed_remote import SealedRemote
from treadle.core.store import Store
from treadle.core.transfer import Transfer

T = TypeVar("T")
Guard = Callable[[bool], AbstractContextManager[None]]


class BucketStore(Store):
    """Objects in a bucket, with copies in a local store.

    ``owner`` is the project's public key. ``guard`` keeps others on any machine from deleting what is being put; with
    True, from putting while something is deleted. Every method may raise ``Unreachable``; nothing was acknowledged
    then, and the same call goes on.
    """

    def __init__(self, local: Store, url: str, owner: str = "", guard: Guard | None = None) -> None:
        self.local, self.root, self.cipher = local, local.root, local.cipher
        self.bucket = Bucket(url, local.root, owner)
        self._guard = guard or (lambda alone: nullcontext())

    def __reduce__(self) -> tuple[type[Store], tuple[Store, str, str]]:  # type: ignore[override]
        return BucketStore, (self.local, self.bucket.url, self.bucket.owner)

    @contextmanager
    def _transfer(self, known: Known) -> Iterator[Transfer]:
        """Work with the bucket; the first problem is raised at the end."""
        sealed = SealedRemote(self.bucket.remote, self.cipher)
        with Transfer(self.local, sealed, known) as transfer:
            try:
                yield transfer
            except OSError as error:
                raise UserError(f"cannot write {self.root}: {error.strerror or error}; free some space") from None
        for problem in transfer.moved.problems.values():
            raise Corrupt(problem)

    # -- writing

    def new_folder(self, prefix: str = "build-") -> Path:
        """As ``Store``."""
        return self.local.new_folder(prefix)

    def put(self, folder: Path) -> str:
        """As ``Store``; once this returns, the bucket has it."""
        digest = self.local.put(folder)
        self._send_artifact(digest)
        return digest

    def add(self, path: Path) -> str:
        """As ``Store``; once this returns, the bucket has it."""
        digest = self.local.add(path)
        self._send_artifact(digest)
        return digest

    def put_bytes(self, data: bytes) -> str:
        """As ``Store``; once this returns, the bucket has it."""
        digest = self.local.put_bytes(data)
        self._send([digest])
        return digest

    def adopt(self, files: Iterable[tuple[Path, str]]) -> None:
        """As ``Store``, over what the bucket has as well."""
        files = list(files)
        self.local.adopt(files)
        self._send_anew([digest for _, digest in files])

    def adopt_pieces(self, pieces: Iterable[bytes], digest: str) -> None:
        """As ``Store``, over what the bucket has as well."""
        self.local.adopt_pieces(pieces, digest)
        self._send_anew([digest])

    def _send_anew(self, digests: list[str]) -> None:
        with self._guard(False), self._transfer(Known(chunks=set())) as transfer:
            transfer.send(digests)
        self.bucket.holdings.learn(digests)

    def send_copies(self, digests: Iterable[str]) -> None:
        """Put into the bucket what is only here, as a restore leaves it that was killed."""
        self._send_anew([digest for digest in digests if self.local.has_object(digest)])

    @contextmanager
    def alone(self) -> Iterator[None]:
        """As ``Store``, among all machines."""
        with self._guard(True):
            yield

    @contextmanager
    def putting(self) -> Iterator[None]:
        """As ``Store``, on all machines."""
        with self._guard(False):
            yield

    def mark(self, *, encrypted: bool) -> None:
        """As ``Store``, of the copies here."""
        self.local.mark(encrypted=encrypted)

    def unmark(self, keep: str | None) -> None:
        """As ``Store``, of the copies here."""
        self.local.unmark(keep)

    def check_keys(self) -> None:
        """As ``Store``, of the copies here. What a key is missing for in the bucket, reading it says."""
        self.local.check_keys()

    def _send_artifact(self, digest: str) -> None:
        """An artifact's files, then its manifest."""
        files = dict.fromkeys(entry.digest for entry in self.local.entries(digest))
        self._send(list(files), [digest])

    def _send(self, *parts: list[str]) -> None:
        chunks = SentChunks(self.bucket.remote, CachedLists(self.local))
        with self._guard(False):
            for digests in parts:
                with self._transfer(Known(chunks=chunks)) as transfer:
                    transfer.send(transfer.renew(digests))
        for digests in parts:
            self.bucket.holdings.learn(digests)

    # -- reading

    def has(self, digest: str) -> bool:
        """Whether the bucket has the artifact's manifest and every file it names."""
        try:
            return self.has_object(digest) and all(self.has_object(entry.digest) for entry in self.entries(digest))
        except Corrupt:
            return False

    def has_object(self, digest: str) -> bool:
        """Whether the bucket has one object."""
        return is_digest(digest) and self.bucket.holdings.hold(digest)

    def read(self, digest: str) -> bytes:
        """As ``Store``."""
        return self._here(digest, self.local.read)

    def open(self, digest: str) -> BinaryIO:
        """As ``Store``."""
        return self._here(digest, self.local.open)

    def open_unverified(self, digest: str) -> BinaryIO:
        """As ``Store``."""
        return self._here(digest, self.local.open_unverified)

    def size(self, digest: str) -> int:
        """As ``Store``."""
        return self._here(digest, self.local.size)

    def entries(self, digest: str) -> tuple[Entry, ...]:
        """As ``Store``."""
        return self._here(digest, self.local.entries)

    def view(self, digest: str) -> Path:
        """As ``Store``."""
        if not self.local.has(digest):
            entries = self.entries(digest)
            self._fetch([entry.digest for entry in entries if not self.local.has_object(entry.digest)])
        try:
            return self.local.view(digest)
        except Corrupt:
            self._fetch([entry.digest for entry in self.entries(digest) if not self._sound(entry.digest)])
            return self.local.view(digest)

    def lasts(self, view: Path) -> bool:
        """As ``Store``."""
        return self.local.lasts(view)

    def check_files(self, digest: str) -> None:
        """As ``Store``, of the copies here, which are fetched where they are missing or damaged."""
        entries = self.entries(digest)
        self._fetch([entry.digest for entry in entries if not self.local.has_object(entry.digest)])
        try:
            self.local.check_files(digest)
        except Corrupt:
            self._fetch([entry.digest for entry in entries if not self._sound(entry.digest)])
            self.local.check_files(digest)

    def _here(self, digest: str, ask: Callable[[str], T]) -> T:
        """Ask the copy here, fetched first where it is missing or damaged."""
        fetched = is_digest(digest) and not self.local.has_object(digest)
        if fetched:
            self._fetch([digest])
        try:
            return ask(digest)
        except Corrupt:
            if fetched or not is_digest(digest) or self._sound(digest):
                raise
            self._fetch([digest])
            return ask(digest)

    def _sound(self, digest: str) -> bool:
        try:
            self.local.check(digest)
        except Corrupt:
            return False
        return True

    def _fetch(self, digests: list[str]) -> None:
        if not digests:
            return
        for digest in digests:
            check_name(digest)
        with self._transfer(Known()) as transfer:
            transfer.fetch(dict.fromkeys(digests))

    def locate(self, digest: str) -> Iterator[Stored]:
        """Where the copy of an object lies."""
        return self.local.locate(digest)

    # -- what there is

    def objects(self) -> Iterator[tuple[str, Stored]]:
        """As ``Store``, of the bucket; ``length`` is what an object takes there, all its chunks together."""
        objects, lists = self.bucket.items("objects"), self.bucket.items("lists")
        with self._transfer(Known()) as transfer:
            sizes = transfer.sizes(each for each in lists if is_digest(each) and each not in objects)
        for digest, item in sorted({**lists, **objects}.items()):
            if is_digest(digest):
                length = sizes.get(digest, item.size)
                yield (
                    digest,
                    Stored(f"{self.bucket.url}/{item.name}", length, self.cipher is not None, None, item.changed),
                )

    def names(self) -> set[str]:
        """As ``Store``: in the bucket, and the copies here, some of which a put that was killed never sent."""
        return super().names() | self.local.names()

    def audit(self) -> Iterator[tuple[str, str]]:
        """As ``Store``, of the bucket; the copies here are checked when they are read."""
        names = {**self.bucket.items("lists"), **self.bucket.items("objects")}
        for digest, item in sorted(names.items()):
            if not is_digest(digest) or item.name not in (place("objects", digest), place("lists", digest)):
                yield digest, f"{self.bucket.url}/{item.name} is no object; take it away"
        for digest, problem in self.examine(sorted(filter(is_digest, names))):
            if problem and self.has_object(digest):  # or it was deleted while we looked
                yield digest, problem

    def check(self, digest: str) -> None:
        """``Corrupt`` unless the bucket has the object and its bytes are those that were stored; reads all of it."""
        check_name(digest)
        for _, problem in self.examine([digest]):
            if problem:
                raise Corrupt(f"object {digest} in {self.bucket.url}: {problem}; run treadle verify")

    def examine(self, digests: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Read objects in the bucket, keeping nothing; each with what is wrong with it, or an empty text."""
        with self._transfer(Known()) as transfer:
            yield from transfer.examine(digests)

    def changed_views(self) -> Iterator[tuple[str, str]]:
        """As ``Store``."""
        return self.local.changed_views()

    # -- removing

    def delete(self, digests: set[str], *, older_than: float | None = None) -> int:
        """As ``Store``, in the bucket and here. With ``older_than`` chunks go as well that a put which was cut off
        has left."""
        before = float("inf") if older_than is None else older_than
        if older_than is None and digests:
            self.require_complete()
        with self._guard(True):
            objects, lists = self.bucket.items("objects"), self.bucket.items("lists")
            items = {**objects, **lists}
            doomed = {digest for digest in digests & items.keys() if items[digest].changed < before}
            chunks = self.bucket.items("chunks") if older_than is not None or doomed & lists.keys() else {}
            try:
                with self._transfer(Known(set(objects), set(lists))) as transfer:
                    gone = transfer.withdraw(doomed)
                    gone |= transfer.sweep({digest for digest, item in chunks.items() if item.changed < before} - gone)
            finally:  # also where something damaged was in the way
                self.bucket.holdings.lose(doomed)
                self.local.delete(digests - (items.keys() - doomed))
        return sum(items[digest].size for digest in doomed) + sum(chunks[each].size for each in gone & chunks.keys())

    def require_complete(self) -> None:
        """As ``Store``, of the copies here."""
        self.local.require_complete()

    def catch_up(self, erased: set[str]) -> None:
        """Believe nothing of the bucket that was learned before, and keep no copy here of what was erased elsewhere."""
        self.bucket.forget()
        self.local.delete({digest for digest in erased if self.local.has_object(digest)})

    def clear_copies(self, older_than: float) -> int:
        """Delete the copies here that were made before (seconds since the epoch); returns their bytes. What is needed
        again is fetched; what the bucket does not have stays."""
        there = self.bucket.items("objects").keys() | self.bucket.items("lists").keys()
        return self.local.delete({digest for digest, _ in self.local.objects()} & there, older_than=older_than)

    def tidy(self) -> None:
        """As ``Store``, of the copies here; what lies in a bucket lies by itself."""
        self.local.tidy()

    def mend(self) -> None:
        """As ``Store``, of the copies here."""
        self.local.mend()

    def clear_temporary(self) -> None:
        """As ``Store``."""
        self.local.clear_temporary()

    def close(self) -> None:
        """As ``Store``."""
        self.local.close()
