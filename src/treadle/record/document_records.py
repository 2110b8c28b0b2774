"""Which list of documents gained a document and which lost it: sorted records of ten bytes, in deflated blocks.

A record is the first six bytes of a document's id and the number of a list in four, big endian, with the highest bit
set where the list lost the document. Six bytes stand for one document nearly always; who finds a record looks for the
whole id in the list itself. A block is 4,096 records column by column, so that what neighbors share lies together:
about 1.4 bytes a record where a hundred lists hold each document, 4.3 where one does.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from treadle.core.errors import Corrupt

PREFIX = 6  # bytes of an id
LOST = 1 << 31
_ID = 32
_WIDTH = 10
_BLOCK = 4_096 * _WIDTH  # bytes
_PART = 250_000  # records that are sorted at a time when segments are merged

Block = tuple[bytes, bytes]  # its first record, and the deflated columns


def records(ids: bytes, number: int, *, lost: bool = False) -> list[bytes]:
    """A record for each of some ids of 32 bytes."""
    end = (number | LOST if lost else number).to_bytes(4, "big")
    return [ids[place : place + PREFIX] + end for place in range(0, len(ids), _ID)]


def streamed(ids: bytes, number: int, *, lost: bool = False) -> Iterator[bytes]:
    """The same for many sorted ids, some at a time."""
    for start in range(0, len(ids), _PART * _ID):
        yield b"".join(records(ids[start : start + _PART * _ID], number, lost=lost))


def packed(parts: Iterable[list[bytes]]) -> Iterator[Block]:
    """Blocks of records that come sorted, part by part."""
    rest = b""
    for part in parts:
        rest += b"".join(part)
        whole = len(rest) - len(rest) % _BLOCK
        for start in range(0, whole, _BLOCK):
            yield _block(rest[start : start + _BLOCK])
        rest = rest[whole:]
    if rest:
        yield _block(rest)


def _block(data: bytes) -> Block:
    return data[:_WIDTH], zlib.compress(b"".join(data[place::_WIDTH] for place in range(_WIDTH)), 1)


def unpacked(block: bytes) -> bytes:
    """The records of a block, one after the other; ``Corrupt`` for what is no block."""
    inflating = zlib.decompressobj()
    try:
        columns = inflating.decompress(block, _BLOCK + 1)
    except zlib.error as error:
        raise Corrupt(f"a block of the index of documents is damaged: {error}") from None
    count, rest = divmod(len(columns), _WIDTH)
    if rest or not inflating.eof or len(columns) > _BLOCK:
        raise Corrupt("a block of the index of documents is damaged")
    data = bytearray(len(columns))
    for place in range(_WIDTH):
        data[place::_WIDTH] = columns[place * count : (place + 1) * count]
    return bytes(data)


def found(data: bytes, prefix: bytes) -> tuple[list[int], list[int]]:
    """The lists that gained a document, and those that lost it, by the records of a block."""
    place = _WIDTH * bisect_left(range(len(data) // _WIDTH), prefix, key=lambda each: _at(data, each)[:PREFIX])
    gained: list[int] = []
    lost: list[int] = []
    while data[place : place + PREFIX] == prefix:
        number = int.from_bytes(data[place + PREFIX : place + _WIDTH], "big")
        if number & LOST:
            lost.append(number ^ LOST)
        else:
            gained.append(number)
        place += _WIDTH
    return gained, lost


def merged(sources: Sequence[Iterator[bytes]], total: int) -> Iterator[list[bytes]]:
    """The records of several sorted sources, in order; some at a time, for ids are spread evenly."""
    waiting = [_Source(source) for source in sources]
    parts = total // _PART + 1
    for part in range(1, parts + 1):
        end = (part << 8 * PREFIX) // parts
        rows = [row for source in waiting for row in source.below(None if part == parts else end.to_bytes(PREFIX))]
        rows.sort()
        yield rows


class _Source:
    """Sorted records that are taken from the front."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = b""

    def below(self, end: bytes | None) -> list[bytes]:
        """The records before ``end``, or all that are left."""
        pieces = [self._rest]
        while end is None or not pieces[-1] or pieces[-1][-_WIDTH:] < end:
            block = next(self._blocks, b"")
            if not block:
                break
            pieces.append(block)
        data = b"".join(pieces)
        count = len(data) // _WIDTH
        place = count if end is None else bisect_left(range(count), end, key=lambda each: _at(data, each))
        self._rest = data[place * _WIDTH :]
        return [_at(data, each) for each in range(place)]


def _at(data: bytes, place: int) -> bytes:
    return data[place * _WIDTH : (place + 1) * _WIDTH]
