"""Ids of documents as bytes: 32 for each, sorted in an artifact's ``documents.ids``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from operator import eq
from typing import BinaryIO, overload

from treadle.core.errors import TreadleError

DOCUMENT_PREFIX = "doc:"
ID_BYTES = 32
_IN_MEMORY = 32_768  # ids, about 1 MB; the others wait in a file


class DocumentIds:
    """A set of ids of documents. Iterating gives them sorted.

    Memory holds the latest of them; the others lie in a file without a name, so that nothing is left of it however the
    process ends. Sorting needs room for those that begin with the same byte.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        """``TreadleError`` for what is no id of a document."""
        self._file: BinaryIO | None = None
        self._parts = [bytearray() for _ in range(256)]  # by first byte
        self._near = 0
        self._runs: list[list[int]] = []  # of each written, where in the file its parts begin, and its end
        self.update(ids)

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def __bool__(self) -> bool:
        return bool(self._near or self._runs)

    def __iter__(self) -> Iterator[str]:
        return (DOCUMENT_PREFIX + raw.hex() for raw in self.sorted())

    def add(self, document: str) -> None:
        """One more, which may be there."""
        raw = raw_id(document)
        self._parts[raw[0]] += raw
        self._near += 1
        if self._near >= _IN_MEMORY:
            self._write()

    def update(self, ids: Iterable[str]) -> None:
        """Some more."""
        for document in ids:
            self.add(document)

    def sorted(self) -> Iterator[bytes]:
        """Each once, 32 bytes, in the order of a ``documents.ids``."""
        for first, part in enumerate(self._parts):
            data = b"".join([*self._written(first), part])
            yield from sorted({data[start : start + ID_BYTES] for start in range(0, len(data), ID_BYTES)})

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="treadle-", buffering=0)  # noqa: SIM115 (closed when let go of)
        places = [self._runs[-1][-1] if self._runs else 0]
        for part in self._parts:
            places.append(places[-1] + len(part))
        data = memoryview(b"".join(self._parts))
        while data:
            data = data[os.pwrite(self._file.fileno(), data, places[-1] - len(data)) :]
        self._runs.append(places)
        self._parts = [bytearray() for _ in range(256)]
        self._near = 0

    def _written(self, first: int) -> Iterator[bytes]:
        if self._file is not None:
            for places in self._runs:
                begin, end = places[first], places[first + 1]
                data = os.pread(self._file.fileno(), end - begin, begin)
                if len(data) != end - begin:
                    raise TreadleError("a temporary file with ids of documents was cut short")
                yield data


class StoredIds(Sequence[str]):
    """The contents of a ``documents.ids`` as they are, 32 bytes an id: sorted, and equal to a tuple of the same ids."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data) // ID_BYTES

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[str, ...]: ...

    def __getitem__(self, place: int | slice) -> str | tuple[str, ...]:
        places = range(len(self))[place]
        return self._at(places) if isinstance(places, int) else tuple(map(self._at, places))

    def __iter__(self) -> Iterator[str]:
        return map(self._at, range(len(self)))

    def __contains__(self, document: object) -> bool:
        try:
            return isinstance(document, str) and holds(self._data, document)
        except ValueError:  # no id of a document
            return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredIds | tuple) and len(other) == len(self) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]  # a tuple's would have to be made of text

    def _at(self, place: int) -> str:
        return DOCUMENT_PREFIX + self._data[place * ID_BYTES : (place + 1) * ID_BYTES].hex()


def holds(ids: bytes, document: str) -> bool:
    """Whether a document is in the contents of a ``documents.ids``."""
    wanted = bytes.fromhex(document.removeprefix(DOCUMENT_PREFIX))
    data = memoryview(ids)
    low, high = 0, len(data) // ID_BYTES
    while low < high:
        middle = (low + high) // 2
        if bytes(data[middle * ID_BYTES : (middle + 1) * ID_BYTES]) < wanted:
            low = middle + 1
        else:
            high = middle
    return bytes(data[low * ID_BYTES : (low + 1) * ID_BYTES]) == wanted


def raw_id(document: str) -> bytes:
    """The 32 bytes of a document's id; ``TreadleError`` when it is none."""
    raw = bytes.fromhex(document.removeprefix(DOCUMENT_PREFIX))
    if len(raw) != ID_BYTES:
        raise TreadleError(f"{document[:80]!r} is not the id of a document")
    return raw
