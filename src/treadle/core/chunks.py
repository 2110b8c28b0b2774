"""Chunks: how large objects travel. Where one ends is decided by the bytes around it (FastCDC), so a byte put in the
middle of a large file changes one or two of them and the rest is there already.

Chunks are not compressed: weights and Parquet gain nothing by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from treadle.core.digest import blake3_bytes, canonical_json, is_digest
from treadle.core.errors import Corrupt, MissingExtra

FORMAT = 1
WHOLE = 4 << 20  # bytes; objects up to this travel as they are
_SMALLEST, _AVERAGE, LARGEST = 512 << 10, 2 << 20, 8 << 20  # bytes of a chunk


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an object: digest and number of bytes."""

    digest: str
    size: int


def cut(file: BinaryIO) -> Iterator[tuple[Chunk, bytes]]:
    """The chunks of what a file holds, one after the other, with their bytes."""
    try:
        from pyfastcdc import FastCDC
    except ModuleNotFoundError:
        raise MissingExtra("pyfastcdc", extra="remote") from None
    for piece in FastCDC(avg_size=_AVERAGE, min_size=_SMALLEST, max_size=LARGEST).cut_stream(file):
        data = bytes(piece.data)
        yield Chunk(blake3_bytes(data), len(data)), data


def list_bytes(chunks: list[Chunk]) -> bytes:
    """A chunk list as it lies at a remote."""
    return canonical_json({"chunks": [[chunk.digest, chunk.size] for chunk in chunks], "format": FORMAT})


def read_list(data: bytes) -> list[Chunk]:
    """The chunks in a list; ``Corrupt`` when it is none."""
    try:
        value = json.loads(data)
        if value["format"] != FORMAT:
            raise Corrupt(f"a chunk list of format {value['format']}; this Treadle reads format {FORMAT}")
        pairs: list[Any] = [(digest, size) for digest, size in value["chunks"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Corrupt(f"not a chunk list: {error}") from None
    for digest, size in pairs:
        sound = isinstance(digest, str) and is_digest(digest) and type(size) is int
        if not sound or not 0 < size <= LARGEST:
            raise Corrupt("not a chunk list: expected a digest and a size for each chunk")
    return [Chunk(digest, size) for digest, size in pairs]
