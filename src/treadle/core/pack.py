"""A pack: one file that holds many small objects, so that a hundred thousand of them cost one inode and one sync.

    head     magic, whether what is in it is encrypted
    records  digest, length, bytes: one object after the other
    index    digest, start, length of each, by digest
    tail     how many there are, BLAKE3 of head and index, magic

A pack gets its name when all of it is on the disk and is never added to. Each object is encrypted by itself, so that
one is read without the others. Where the index is damaged, the records say it again, and what is left of the index
says where they begin.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from treadle.core.digest import PREFIX
from treadle.core.errors import Corrupt
from treadle.core.intake import start_writing

SUFFIX = ".pack"
ASIDE = ".pack.damaged"  # one that was mended, and holds what could not be placed
LARGEST = 64 << 10  # bytes; an object of this size or more lies by itself
FULL = 256 << 20  # bytes; then another pack is begun: to take one object out of it, all of it is written anew

_MAGIC, _END = b"treadle pack 1", b"pack end"
_HEAD = struct.Struct(">14sBx")
_RECORD = struct.Struct(">32sI")
_PLACE = struct.Struct(">32sQI")
_TAIL = struct.Struct(">Q32s8s")
_BUFFER = 1 << 20  # bytes written at a time
_ENCRYPTED_MORE = 1 << 10  # bytes that encryption may add to an object
_PAGE = 4096 * _PLACE.size  # bytes of an index looked at together

Place = tuple[bytes, int, int]  # digest, start, length


class Pack:
    """A pack as it lies on the disk, with its index in memory. ``damage`` says what is wrong with it, if anything."""

    def __init__(self, path: Path) -> None:
        """``Corrupt`` when it is no pack; ``FileNotFoundError`` when it is gone."""
        self.path = path
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            self.modified, self.bytes = status.st_mtime, status.st_size
            self.damage: str | None = None
            head = file.read(_HEAD.size)
            self.complete = True  # whether the index names every object that was written
            written, index = _read_index(file, head, self.bytes)
            if index is None:
                if len(head) < _HEAD.size or not head.startswith(_MAGIC):
                    raise Corrupt(f"{path} is not a pack of objects, or its first bytes and its index changed")
                self.complete = False
                self.damage = "its index is not what was written; treadle pull REMOTE mends it"
                index = _index_bytes(_salvaged(file, self.bytes))
            elif written != head:
                self.damage = "its first bytes are not what was written; treadle pull REMOTE mends it"
            self.encrypted = bool(_HEAD.unpack(written)[1])
        self._index, self._count = index, len(index) // _PLACE.size
        self.end = self.bytes - _TAIL.size - len(index)  # of the records

    def __len__(self) -> int:
        return self._count

    def __contains__(self, raw: bytes) -> bool:
        return self.find(raw) is not None

    def find(self, raw: bytes) -> tuple[int, int] | None:
        """Start and length of an object; None when it is not here."""
        index, size = self._index, _PLACE.size
        at = bisect_left(range(self._count), raw, key=lambda number: index[number * size : number * size + 32])
        if at == self._count or index[at * size : at * size + 32] != raw:
            return None
        _, start, length = _PLACE.unpack_from(index, at * size)
        return start, length

    def places(self, raw: bytes) -> Iterator[tuple[int, int]]:
        """As ``find``; of a damaged pack every place where it may be."""
        if self.complete:
            place = self.find(raw)
            if place is not None:
                yield place
        else:
            yield from (place[1:] for place in self if place[0] == raw)

    def accounts_for(self, settled: AbstractSet[Place]) -> bool:
        """Whether nothing is lost with this file when what is in these places is safe.

        Where the index is damaged they have to follow on each other from the first byte to an index of just them.
        """
        if self.complete:
            return {raw for raw, _, _ in settled} >= self.names()
        begins: dict[int, list[Place]] = {}
        for place in settled:
            begins.setdefault(place[1] - _RECORD.size, []).append(place)
        at, row = _HEAD.size, []
        while at in begins:
            place = next((each for each in begins[at] if each[1] + each[2] in begins), begins[at][0])
            row.append(place)
            at = place[1] + place[2]
        index = _index_bytes(row)
        tail = _TAIL.pack(len(row), blake3(_HEAD.pack(_MAGIC, self.encrypted) + index).digest(), _END)
        with self.path.open("rb") as file:
            file.seek(at)
            rest = file.read(len(index) + len(tail) + 1)
        whole = self.bytes - at == len(index) + len(tail)
        return whole or (bool(row) and rest.startswith(index)) or (index + tail).startswith(rest)

    def names(self) -> set[bytes]:
        """The digests of all of them."""
        index = self._index
        return {index[at : at + 32] for at in range(0, len(index), _PLACE.size)}

    def __iter__(self) -> Iterator[Place]:
        """Digest, start and length of each object, by digest."""
        return _PLACE.iter_unpack(self._index)

    def records(self) -> Iterator[tuple[bytes, bytes, bool]]:
        """Digest and bytes of each object as they lie there, and whether the record says the same as the index."""
        with self.path.open("rb", buffering=_BUFFER) as file:
            for raw, start, length in sorted(self, key=lambda place: place[1]):
                file.seek(start - _RECORD.size)
                head = file.read(_RECORD.size)
                yield raw, file.read(length), head == _RECORD.pack(raw, length)

    def is_tight(self) -> bool:
        """Whether there is nothing between and after the records."""
        at = _HEAD.size
        for _, start, length in sorted(self, key=lambda place: place[1]):
            if start != at + _RECORD.size:
                return False
            at = start + length
        return at == self.end

    def overwrite(self, raw: bytes, data: bytes) -> None:
        """Put right bytes in the place of damaged ones; killed in between, they are damaged as before."""
        place = self.find(raw)
        if place is None or place[1] != len(data):
            raise Corrupt(f"{self.path} has no place for object {PREFIX}{raw.hex()}")
        self.path.chmod(0o644)
        try:
            with self.path.open("r+b") as file:
                file.seek(place[0] - _RECORD.size)
                file.write(_RECORD.pack(raw, place[1]) + data)
                file.flush()
                os.fsync(file.fileno())
        finally:
            self.path.chmod(0o444)


class PackWriter:
    """A pack being written, under a name of its own until ``finish``."""

    def __init__(self, path: Path, *, encrypted: bool) -> None:
        self._path = path
        self._head = _HEAD.pack(_MAGIC, encrypted)
        self._file: BinaryIO = path.open("xb", buffering=_BUFFER)
        self._file.write(self._head)
        self._places: dict[bytes, tuple[int, int]] = {}
        self.size = self._started = len(self._head)
        self.name = ""

    def __contains__(self, raw: bytes) -> bool:
        return raw in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, raw: bytes, data: bytes) -> None:
        """One more object."""
        length = len(data)
        start = self.size + _RECORD.size
        self._file.write(_RECORD.pack(raw, length) + data)
        self._places[raw] = (start, length)
        self.size = start + length
        if self.size - self._started >= _BUFFER:
            self._started = start_writing(self._file.fileno(), self._started, self.size)

    def finish(self) -> Path:
        """Put all of it on the disk, read-only, and say where; ``name`` is what it is to be called."""
        index = _index_bytes((raw, *place) for raw, place in self._places.items())
        check = blake3(self._head + index).digest()
        with self._file as file:
            file.write(index)
            file.write(_TAIL.pack(len(self._places), check, _END))
            file.flush()
            os.fchmod(file.fileno(), 0o444)
            os.fsync(file.fileno())
        self.name = check.hex() + SUFFIX
        return self._path

    def discard(self) -> None:
        """Throw it away."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def _index_bytes(places: Iterable[Place]) -> bytes:
    pack = _PLACE.pack
    return b"".join(sorted([pack(*place) for place in places]))


def _read_index(file: BinaryIO, head: bytes, size: int) -> tuple[bytes, bytes | None]:
    """The head as it was written, and the index; None when it is not what was written.

    A head that changed is known again: there are two, and the tail's check is over one of them.
    """
    if size < _HEAD.size + _TAIL.size:
        return head, None
    file.seek(size - _TAIL.size)
    count, check, end = _TAIL.unpack(file.read(_TAIL.size))
    start = size - _TAIL.size - count * _PLACE.size
    if end != _END or start < _HEAD.size:
        return head, None
    file.seek(start)
    index = file.read(count * _PLACE.size)
    for written in (head, _HEAD.pack(_MAGIC, False), _HEAD.pack(_MAGIC, True)):
        if blake3(written + index).digest() == check:
            return written, index
    return head, None


def _salvaged(file: BinaryIO, size: int) -> Iterator[Place]:
    """Where objects may lie in a pack whose index is damaged; what each holds is checked by whoever reads it.

    Records are followed from the first one and from every place that the index still names: one damaged record hides
    none of those after it.
    """
    end, listed = _listed(file, size)
    found, seen = set(listed), set()
    for begin in sorted({_HEAD.size, *(start + length for _, start, length in listed)}):
        at = begin
        while at not in seen and at + _RECORD.size <= end:
            seen.add(at)
            file.seek(at)
            raw, length = _RECORD.unpack(file.read(_RECORD.size))
            start = at + _RECORD.size
            if not _is_likely(start, length, end):
                break
            found.add((raw, start, length))
            at = start + length
    yield from found


def _is_likely(start: int, length: int, end: int) -> bool:
    return _HEAD.size + _RECORD.size <= start <= start + length <= end and length <= LARGEST + _ENCRYPTED_MORE


def _listed(file: BinaryIO, size: int) -> tuple[int, list[Place]]:
    """Where the records end, and the entries of a damaged index that may be true.

    The tail says how many there are. Where it cannot be right, the index begins where the last object that it names
    ends.
    """
    last = size - _TAIL.size
    if last < _HEAD.size:
        return size, []
    file.seek(last)
    count, _, magic = _TAIL.unpack(file.read(_TAIL.size))
    told = last - count * _PLACE.size
    begin, listed = _walked(file, last)
    if begin is None and magic == _END and told >= _HEAD.size:
        begin = told
        file.seek(told)
        index = file.read(last - told)
        listed = [place for place in _PLACE.iter_unpack(index) if _is_likely(place[1], place[2], told)]
    return (size if begin is None else begin), listed


def _walked(file: BinaryIO, last: int) -> tuple[int | None, list[Place]]:
    """The index read backwards up to where the objects end that it names; None where it names no such place."""
    at, reach, listed = last, 0, []
    while at - _PLACE.size >= _HEAD.size:
        page = min(_PAGE, (at - _HEAD.size) // _PLACE.size * _PLACE.size)
        file.seek(at - page)
        likely = 0
        for place in reversed(list(_PLACE.iter_unpack(file.read(page)))):
            at -= _PLACE.size
            if _is_likely(place[1], place[2], at):
                listed.append(place)
                reach, likely = max(reach, place[1] + place[2]), likely + 1
            if reach == at:
                return at, listed
        if not likely:
            break
    return None, listed
