"""Moving objects between a store and a remote: only what is missing, checked on both sides, resumed after a kill.

What is sent is read once, hashed on the way, and named at the remote last. What is fetched gets its name in the store
only when its digest is right; until then it grows in `cache/pull/`, where the next attempt goes on.
"""

from __future__ import annotations

import math
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from blake3 import blake3

from treadle.core.chunks import LARGEST, WHOLE, Chunk, cut, list_bytes, read_list
from treadle.core.digest import PREFIX, blake3_bytes
from treadle.core.errors import Corrupt
from treadle.core.known import CachedLists, Known
from treadle.core.partial import Partial
from treadle.core.remote import Remote, listed, place
from treadle.core.store import Store

T = TypeVar("T")

_AT_ONCE = 4  # chunks under way; bounds memory together with the size of a chunk
_WHOLE_AT_ONCE = 16  # objects that travel as they are: mostly small, and then each is a wait for an answer
_SMALL = 64 << 10  # bytes; to send so little costs no more than to ask whether it is there
_NAMED_AT_ONCE = 8192  # objects that are put on the disk together, or fewer of so many bytes
_NAMED_BYTES = 256 << 20
_LONGEST_LIST = 64 << 20  # bytes, of an object of more than a terabyte
_TRIES = 3  # of a chunk whose bytes are wrong: the way may be to blame, and not the remote


@dataclass
class Moved:
    """What a transfer did. ``problems`` are objects that could not be moved, with what is wrong with them."""

    objects: int = 0
    bytes: int = 0
    chunks: int = 0
    present: int = 0
    deleted: int = 0
    problems: dict[str, str] = field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        """As JSON."""
        problems = [{"ref": digest, "detail": detail} for digest, detail in sorted(self.problems.items())]
        figures = {name: getattr(self, name) for name in ("objects", "bytes", "chunks", "present", "deleted")}
        return {"ok": not self.problems, **figures, "problems": problems}


class Transfer:
    """Between one store and one remote. Close it, or use it in a ``with`` block. Without ``known`` the remote is
    asked for everything that it has."""

    def __init__(self, store: Store, remote: Remote, known: Known | None = None) -> None:
        self.store, self.remote, self.moved = store, remote, Moved()
        known = known or Known.all_of(remote)
        self._objects, self._lists, self._chunks = known.objects, known.lists, known.chunks
        self._pool = ThreadPoolExecutor(_WHOLE_AT_ONCE)
        self._cached = CachedLists(store)
        self._most: Mapping[str, int] = {}

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def holds(self, digest: str) -> bool:
        """Whether the remote says that it has an object."""
        return digest in self._objects or digest in self._lists

    def held(self) -> set[str]:
        """What the remote says that it has."""
        return self._objects | self._lists

    # -- there

    def send(self, digests: Iterable[str]) -> None:
        """Send objects that the remote lacks; one that is damaged here is a problem, and the others go on."""
        missing = []
        for digest in digests:
            if self.holds(digest):
                self.moved.present += 1
            elif self._size(digest) > WHOLE:
                with self._problems(digest):
                    self._send_chunks(digest)
            else:
                missing.append(digest)
        for digest, size in self._side_by_side(self._send_whole, missing, _WHOLE_AT_ONCE):
            self.moved.objects += size >= 0
            self.moved.bytes += max(size, 0)
            if size >= 0:
                self._objects.add(digest)

    def renew(self, digests: Iterable[str]) -> list[str]:
        """Make young again what the remote has, whatever is believed of it; returns what is still to be sent."""
        asked = self._side_by_side(self._renewed, digests, _WHOLE_AT_ONCE)
        return [digest for digest, there in asked if not there]

    def _renewed(self, digest: str) -> tuple[str, bool]:
        size = self._size(digest)
        if size <= _SMALL:
            return digest, False
        try:
            self.remote.renew(place("objects" if size <= WHOLE else "lists", digest))
        except FileNotFoundError:
            return digest, False
        return digest, True

    def _size(self, digest: str) -> int:
        try:
            return self.store.size(digest)
        except Corrupt:
            return 0

    def _send_whole(self, digest: str) -> tuple[str, int]:
        with self._problems(digest):
            data = self.store.read(digest)
            self.remote.write(place("objects", digest), data)
            return digest, len(data)
        return digest, -1

    def _send_chunks(self, digest: str) -> None:
        if self._chunks is None:
            self._chunks = listed(self.remote, "chunks")
        known, chunks, whole = self._chunks, [], blake3()
        with self.store.open_unverified(digest) as file:

            def fresh() -> Iterator[tuple[Chunk, bytes]]:
                for chunk, data in cut(file):
                    whole.update(data)
                    chunks.append(chunk)
                    if chunk.digest not in known:
                        known.add(chunk.digest)
                        yield chunk, data

            for size in self._side_by_side(self._send_chunk, fresh(), _AT_ONCE):
                self.moved.bytes += size
                self.moved.chunks += 1
        if PREFIX + whole.hexdigest() != digest:
            raise Corrupt(f"object {digest} is not what was stored: its bytes changed; treadle pull REMOTE mends it")
        self.remote.write(place("lists", digest), list_bytes(chunks))
        self._cached.keep(digest, chunks)
        self._lists.add(digest)
        self.moved.objects += 1

    def _send_chunk(self, piece: tuple[Chunk, bytes]) -> int:
        chunk, data = piece
        self.remote.write(place("chunks", chunk.digest), data)
        return len(data)

    def withdraw(self, digests: set[str]) -> set[str]:
        """Delete objects at the remote, and the chunks that no other object there is made of; returns those chunks."""
        gone = [digest for digest in sorted(digests) if self.holds(digest)]
        lists = [digest for digest in gone if digest in self._lists]
        doomed = self._chunks_of(lists, strict=True)
        if doomed:
            doomed -= self._chunks_of(sorted(self._lists - set(lists)))
        self._delete(place("chunks", chunk) for chunk in sorted(doomed))
        self._delete(place(kind, digest) for kind, digest in self._places(gone))
        self._objects -= digests
        self._lists -= digests
        self.moved.deleted += len(gone)
        return doomed

    def sweep(self, chunks: set[str]) -> set[str]:
        """Delete those of these chunks that no list at the remote names, left by what was cut off; returns them."""
        doomed = chunks - self._chunks_of(sorted(self._lists)) if chunks else set()
        self._delete(place("chunks", chunk) for chunk in sorted(doomed))
        return doomed

    def _places(self, digests: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Where objects lie; one that was sent by two versions of Treadle may lie in either way."""
        for digest in digests:
            for kind, there in (("lists", self._lists), ("objects", self._objects)):
                if digest in there:
                    yield kind, digest

    def sizes(self, digests: Iterable[str]) -> dict[str, int]:
        """Bytes of objects that lie in chunks, by their lists; without those whose list cannot be read."""
        return {digest: size for digest, size in self._side_by_side(self._length, digests, _WHOLE_AT_ONCE) if size >= 0}

    def _length(self, digest: str) -> tuple[str, int]:
        try:
            return digest, sum(chunk.size for chunk in self._list(digest))
        except (Corrupt, FileNotFoundError):
            return digest, -1

    def _delete(self, names: Iterable[str]) -> None:
        for _ in self._side_by_side(self.remote.delete, names, _WHOLE_AT_ONCE):
            pass

    def _chunks_of(self, digests: Iterable[str], *, strict: bool = False) -> set[str]:
        """The chunks that the lists of these objects name. A list that cannot be read names none: its object cannot be
        read either. With ``strict`` it becomes a problem as well, for its chunks may stay behind."""
        lists = self._side_by_side(partial(self._list_or_none, strict), digests, _WHOLE_AT_ONCE)
        return {chunk.digest for chunks in lists for chunk in chunks}

    def _list_or_none(self, strict: bool, digest: str) -> list[Chunk]:
        try:
            return self._list(digest)
        except (Corrupt, FileNotFoundError) as error:
            if strict:
                self.moved.problems[digest] = f"its list of chunks cannot be read, they may be left there: {error}"
            return []

    def _list(self, digest: str) -> list[Chunk]:
        return read_list(self.remote.read(place("lists", digest), 0, _LONGEST_LIST))

    # -- back

    def fetch(self, digests: Iterable[str], most: Mapping[str, int] | None = None) -> None:
        """Fetch objects and give them their names; over what is there, for it is damaged. What the remote lacks, or
        has damaged, is a problem, and the others go on. ``most`` bytes by digest, where known: of what is longer
        at the remote no more is taken, and it is damaged."""
        self._most = most or {}
        whole: list[str] = []
        in_chunks: list[str] = []
        for digest in digests:
            (in_chunks if digest in self._lists and digest not in self._objects else whole).append(digest)
        if whole:
            in_chunks += self._fetch_all_whole(whole)
        for digest in in_chunks:
            with self._problems(digest):
                self._fetch_chunks(digest)

    def _fetch_all_whole(self, digests: list[str]) -> list[str]:
        """Objects that travel as they are; named many at a time, for each time is a wait for the disk. Returns those
        that the remote does not have so."""
        folder = self.store.new_folder("pull-")
        batch: list[tuple[Path, str]] = []
        others, waiting = [], 0  # waiting: bytes
        try:
            for digest, size in self._side_by_side(partial(self._fetch_whole, folder), digests, _WHOLE_AT_ONCE):
                if size is None:
                    if digest not in self.moved.problems:
                        others.append(digest)
                    continue
                self.moved.objects += 1
                self.moved.bytes += size
                if (path := folder / digest.removeprefix(PREFIX)).exists():
                    batch.append((path, digest))
                    waiting += size
                if len(batch) == _NAMED_AT_ONCE or waiting > _NAMED_BYTES:
                    self.store.adopt(batch)
                    batch, waiting = [], 0
            self.store.adopt(batch)
            return others
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _fetch_whole(self, folder: Path, digest: str) -> tuple[str, int | None]:
        """One object into a file of ``folder``, or into its place when it is long; the size, or None for a problem and
        for what is not there."""
        with self._problems(digest):
            for _ in range(_TRIES):
                try:
                    data = self.remote.read(place("objects", digest), 0, LARGEST)
                except FileNotFoundError:
                    return digest, None
                if len(data) == LARGEST:
                    size = self._fetch_long(digest, data)
                    if size is not None:
                        return digest, size
                elif blake3_bytes(data) == digest:
                    (folder / digest.removeprefix(PREFIX)).write_bytes(data)
                    return digest, len(data)
            raise Corrupt(f"{self.remote.url} has object {digest} damaged; it was not taken")
        return digest, None

    def _fetch_long(self, digest: str, data: bytes) -> int | None:
        """The rest of an object that is whole at another project's store, piece by piece; None when it is damaged."""
        with Partial(self.store, digest) as growing:
            growing.restart()
            while data and growing.size <= self._most.get(digest, math.inf):
                growing.append(data)
                data = self._read(place("objects", digest), growing.size) if len(data) == LARGEST else b""
            if growing.digest() == digest:
                growing.finish()
                return growing.size
            growing.discard()
            return None

    def _read(self, name: str, start: int) -> bytes:
        try:
            return self.remote.read(name, start, LARGEST)
        except FileNotFoundError:
            raise Corrupt(f"{self.remote.url} does not have {name}") from None

    def _fetch_chunks(self, digest: str) -> None:
        try:
            chunks = self._list(digest)
        except FileNotFoundError:
            raise Corrupt(f"object {digest} is missing from {self.remote.url}") from None
        if sum(chunk.size for chunk in chunks) > self._most.get(digest, math.inf):
            raise Corrupt(f"{self.remote.url} has the chunk list of {digest} damaged; it was not taken")
        with Partial(self.store, digest) as growing:
            rest = chunks[growing.resume(chunks) :]
            for data, travelled in self._side_by_side(self._fetch_chunk, rest, _AT_ONCE):
                growing.append(data)
                if travelled:
                    self.moved.bytes += len(data)
                    self.moved.chunks += 1
            if growing.digest() != digest:
                growing.discard()
                raise Corrupt(f"{self.remote.url} has the chunk list of {digest} damaged; it was not taken")
            growing.finish()
        self._cached.keep(digest, chunks)
        self.moved.objects += 1

    def _fetch_chunk(self, chunk: Chunk) -> tuple[bytes, bool]:
        here = self._cached.find(chunk)
        return (self._chunk(chunk), True) if here is None else (here, False)

    def _chunk(self, chunk: Chunk) -> bytes:
        for _ in range(_TRIES):
            data = self._read(place("chunks", chunk.digest), 0)
            if blake3_bytes(data) == chunk.digest:
                return data
        raise Corrupt(f"{self.remote.url} has chunk {chunk.digest} damaged; it was not taken")

    # -- both

    def examine(self, digests: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Read objects at the remote, keeping nothing; each with what is wrong with it, or an empty text."""
        in_chunks = []
        for digest, problem in self._side_by_side(self._examine_whole, digests, _WHOLE_AT_ONCE):
            if problem is None:
                in_chunks.append(digest)
            else:
                yield digest, problem
        for digest in in_chunks:
            yield digest, self._examine_chunks(digest)

    def _examine_whole(self, digest: str) -> tuple[str, str | None]:
        """An object that lies as it is; None for one that does not."""
        hasher, size = blake3(), 0
        try:
            while data := self.remote.read(place("objects", digest), size, LARGEST):
                hasher.update(data)
                size += len(data)
                if len(data) < LARGEST:
                    break
        except FileNotFoundError:
            return digest, None
        except Corrupt as error:  # encrypted, and not what was
            return digest, str(error)
        return digest, "" if PREFIX + hasher.hexdigest() == digest else "its bytes changed since it was stored"

    def _examine_chunks(self, digest: str) -> str:
        hasher = blake3()
        try:
            for data in self._side_by_side(self._chunk, self._list(digest), _AT_ONCE):
                hasher.update(data)
        except FileNotFoundError:
            return "is missing"
        except Corrupt as error:
            return str(error)
        return "" if PREFIX + hasher.hexdigest() == digest else "its list of chunks is not the one that was stored"

    def _side_by_side(self, work: Callable[[Any], T], items: Iterable[Any], at_once: int) -> Iterator[T]:
        """Results in order, so many under way; the items are asked for one at a time."""
        under_way: deque[Future[T]] = deque()
        try:
            for item in items:
                under_way.append(self._pool.submit(work, item))
                if len(under_way) >= at_once:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()

    def _problems(self, digest: str) -> suppress:
        return _Noted(self.moved, digest)


class _Noted(suppress):
    """Turns ``Corrupt`` into a problem."""

    def __init__(self, moved: Moved, digest: str) -> None:
        super().__init__(Corrupt)
        self._moved, self._digest = moved, digest

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if isinstance(error, Corrupt):
            self._moved.problems[self._digest] = str(error)
        return bool(super().__exit__(kind, error, trace))
