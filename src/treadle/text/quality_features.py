"""Hashed features of texts: which words and pairs of words occur, each a number below ``BUCKETS``.

Feature hashing after Weinberger et al. 2009 (arXiv:0902.2206). A word is a run of letters, digits and bytes beyond
ASCII, or a run of punctuation, or a line end; ASCII counts in lower case and every digit as the same one. All of it
is arithmetic on whole arrays of bytes, and the same on every machine.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BITS = 18
BUCKETS = 1 << BITS
LOOKED_AT = 100_000  # bytes of a text, from its start
_CHUNK = 400_000  # bytes hashed together
_PRIME = 0x100000001B3  # of FNV; odd, so it has an inverse modulo 2**64
_MIX = 0x9E3779B97F4A7C15  # Fibonacci hashing: the high bits are the well mixed ones
_PAIR = 0xC2B2AE3D27D4EB4F
_SPACE, _WORD, _MARK, _LINE = range(4)


class Features(NamedTuple):
    """Rows of a sparse matrix: ``buckets[starts[i]:starts[i + 1]]``, ascending and each once, are those of text i."""

    buckets: NDArray[np.int32]
    starts: NDArray[np.int64]


def features_of(texts: Sequence[str]) -> Iterator[Features]:
    """The features of the texts in order, some texts at a time. A text without words has none."""
    for chunk in _chunks(text.encode("utf-8", "surrogatepass")[:LOOKED_AT] for text in texts):
        yield _hashed(chunk)


def _chunks(texts: Iterable[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text) + 1
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _hashed(texts: list[bytes]) -> Features:
    import numpy as np

    kinds, lower, powers, inverses = _tables()
    data = np.frombuffer(b" ".join(texts) + b" ", dtype=np.uint8)
    kind = kinds[data]
    changes = np.flatnonzero(np.diff(kind, prepend=np.uint8(_SPACE)))
    begins = changes[kind[changes] != _SPACE]
    ends = np.append(changes, len(data))[np.searchsorted(changes, begins, side="right")]
    sums = np.zeros(len(data) + 1, dtype=np.uint64)
    np.cumsum(lower[data] * powers[: len(data)], out=sums[1:])
    words = (sums[ends] - sums[begins]) * inverses[begins] * np.uint64(_MIX)
    edges = np.cumsum([0] + [len(text) + 1 for text in texts])
    owner = np.searchsorted(edges, begins, side="right") - 1
    pairs = ((words[:-1] ^ (words[:-1] >> np.uint64(29))) * np.uint64(_PAIR) + words[1:]) * np.uint64(_MIX)
    same = owner[:-1] == owner[1:]
    hashes = np.concatenate((words, pairs[same])) >> np.uint64(64 - BITS)
    owners = np.concatenate((owner, owner[:-1][same])).astype(np.uint64)
    keys = np.sort((owners << np.uint64(BITS)) | hashes)
    keys = keys[np.diff(keys, prepend=np.uint64(2**63)) != 0]
    counts = np.bincount((keys >> np.uint64(BITS)).astype(np.int64), minlength=len(texts))
    starts = np.concatenate(([0], np.cumsum(counts)))
    return Features((keys & np.uint64(BUCKETS - 1)).astype(np.int32), starts)


@functools.cache
def _tables() -> tuple[Any, Any, Any, Any]:
    """Kind and value of each byte; powers of the prime and of its inverse for each place in a chunk."""
    import numpy as np

    kinds = np.full(256, _MARK, dtype=np.uint8)
    kinds[128:] = _WORD
    lower = np.arange(1, 257, dtype=np.uint64)
    for code in range(128):
        letter = chr(code)
        if letter.isalnum():
            kinds[code] = _WORD
            lower[code] = ord("0" if letter.isdigit() else letter.lower()) + 1
        elif letter == "\n":
            kinds[code] = _LINE
        elif letter.isspace() or code < 32:
            kinds[code] = _SPACE
    size = _CHUNK + LOOKED_AT + 1  # the most bytes of a chunk, with a space after each of its texts
    powers = np.full(size, _PRIME, dtype=np.uint64)
    inverses = np.full(size, pow(_PRIME, -1, 1 << 64), dtype=np.uint64)
    powers[0] = inverses[0] = 1
    return kinds, lower, np.cumprod(powers), np.cumprod(inverses)
