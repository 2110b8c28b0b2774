"""Shingles: runs of words as 64-bit numbers, for many texts at a time. Texts whose sets of shingles overlap are alike.

What a word is stands here and nowhere else, in ranges of code points that no later version of Unicode or of Python
changes, because digests depend on it: letters and digits, lower-cased; everything that the ranges below name divides
words, and a character of a script that puts no spaces between words is a word by itself. The numbers are sums and
products in 2^64, the same on every machine. Two different shingles get the same number with a chance of about
pairs / 2^64.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 5  # words
_PIECE = 1 << 20  # characters of one text that are looked at together; a word across the border counts as two
_CHUNK = 1 << 18  # characters of several texts: their arrays fit a processor's cache
_CHUNK_TEXTS = 512
# Odd, with well-mixed bits: of splitmix64 (Steele et al. 2014).
_WORD_BASE = 0xD1342543DE82EF95
_RUN_BASE = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))

# Controls, spaces, punctuation and symbols, first and last.
DIVIDING = (
    (0x00, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0xA9), (0xAB, 0xB1), (0xB4, 0xB4), (0xB6, 0xB8), (0xBB, 0xBB),
    (0xBF, 0xBF), (0xD7, 0xD7), (0xF7, 0xF7), (0x2C2, 0x2C5), (0x55A, 0x55F), (0x589, 0x58A), (0x5BE, 0x5BE),
    (0x5C0, 0x5C0), (0x5C3, 0x5C3), (0x5F3, 0x5F4), (0x60C, 0x60D), (0x61B, 0x61F), (0x66A, 0x66D), (0x6D4, 0x6D4),
    (0x964, 0x965), (0x1361, 0x1368), (0x1680, 0x1680), (0x2000, 0x206F), (0x20A0, 0x20CF), (0x2190, 0x245F),
    (0x2500, 0x2BFF), (0x2E00, 0x2E7F), (0x3000, 0x3004), (0x3008, 0x3020), (0x3030, 0x3030), (0x30FB, 0x30FB),
    (0xD800, 0xF8FF), (0xFE10, 0xFE1F), (0xFE30, 0xFE6F), (0xFEFF, 0xFEFF), (0xFF00, 0xFF0F), (0xFF1A, 0xFF20),
    (0xFF3B, 0xFF40), (0xFF5B, 0xFF65), (0xFFE0, 0xFFFF), (0x1F000, 0x1FAFF), (0xE0000, 0x10FFFF),
)  # fmt: skip
# Thai, Lao, Myanmar, Khmer, kana, Han.
SINGLE = ((0xE00, 0xEFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FA), (0x30FC, 0x30FF), (0x3400, 0x4DBF),
           (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))  # fmt: skip


def chunks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Half-open ranges of texts that are worked on together."""
    start = characters = 0
    for place, text in enumerate(texts):
        if place > start and (characters + len(text) > _CHUNK or place - start >= _CHUNK_TEXTS):
            yield start, place
            start, characters = place, 0
        characters += len(text)
    if start < len(texts):
        yield start, len(texts)


def shingles(texts: Sequence[str], size: int = SIZE) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hash of every run of ``size`` words, in order, and where each text's begin, of shape (texts + 1,).

    A text of fewer words has one shingle, of all of them; one without words has none.
    """
    words, starts = word_hashes(texts)
    lengths = np.diff(starts)
    counts = np.where(lengths == 0, 0, np.maximum(1, lengths - size + 1))
    ends = np.concatenate(([0], np.cumsum(counts)))
    places = np.arange(ends[-1]) + np.repeat(starts[:-1] - ends[:-1], counts)
    padded = np.concatenate((words, np.zeros(size, dtype=np.uint64)))
    runs = np.zeros(len(words), dtype=np.uint64)
    for offset in range(size):
        runs *= np.uint64(_RUN_BASE)
        runs += padded[offset : offset + len(words)]
    found = runs[places]
    short = np.flatnonzero((lengths > 0) & (lengths < size))
    if len(short):
        found[ends[short]] = _short_runs(padded, starts[short], lengths[short], size)
    return mix(found), ends


def sets_of(texts: Sequence[str], size: int = SIZE) -> Iterator[NDArray[np.uint64]]:
    """The different shingles of each text, sorted."""
    for first, last in chunks(texts):
        hashes, starts = shingles(texts[first:last], size)
        for place in range(last - first):
            yield _different(hashes[starts[place] : starts[place + 1]])


def _different(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    ordered = np.sort(numbers)
    fresh = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    return ordered[fresh]


def jaccard(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> float:
    """Common members over all members of two sets, in [0, 1]; 0 when one is empty."""
    if not len(first) or not len(second):
        return 0.0
    both = np.concatenate((first, second))
    both.sort()
    common = int(np.count_nonzero(both[1:] == both[:-1]))
    return common / (len(both) - common)


def word_hashes(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hash of every word of every text, and where each text's begin, of shape (texts + 1,)."""
    found: list[NDArray[np.uint64]] = []
    counts = np.zeros(len(texts), dtype=np.int64)
    for _, parts in itertools.groupby(_pieces(texts), key=lambda piece: piece[1].isascii()):
        waiting: list[tuple[int, str]] = []
        characters = 0
        for place, part in parts:
            waiting.append((place, part))
            characters += len(part)
            if characters >= _CHUNK:
                found.append(_count(waiting, counts))
                waiting, characters = [], 0
        if waiting:
            found.append(_count(waiting, counts))
    return np.concatenate(found or [np.empty(0, dtype=np.uint64)]), np.concatenate(([0], np.cumsum(counts)))


def mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of a number spread over all of it: the finalizer of splitmix64."""
    mixed = numbers >> np.uint64(_MIX[0][0])
    mixed ^= numbers
    mixed *= np.uint64(_MIX[0][1])
    moved = mixed >> np.uint64(_MIX[1][0])
    mixed ^= moved
    mixed *= np.uint64(_MIX[1][1])
    np.right_shift(mixed, np.uint64(31), out=moved)
    mixed ^= moved
    return mixed


def _pieces(texts: Iterable[str]) -> Iterator[tuple[int, str]]:
    for place, text in enumerate(texts):
        if len(text) <= _PIECE:
            yield place, text
            continue
        for start in range(0, len(text), _PIECE):
            yield place, text[start : start + _PIECE]


def _count(parts: Sequence[tuple[int, str]], counts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hashes of the words in the parts, in order; their number is added to the count of each part's text."""
    line = "\n".join(part for _, part in parts) + "\n"
    codes, begins = _read(line)
    starts = np.flatnonzero(begins)
    if not len(starts):
        return np.empty(0, dtype=np.uint64)
    powers, inverse = _powers(len(line))
    sums = np.cumsum(codes * powers[: len(line)])
    before = np.where(starts > 0, sums[starts - 1], np.uint64(0))
    hashes = np.diff(before, append=sums[-1:])  # what stands between two words adds nothing
    hashes *= inverse[starts]
    borders = np.cumsum([len(part) + 1 for _, part in parts])
    within = np.diff(np.searchsorted(starts, borders), prepend=0)
    np.add.at(counts, np.array([place for place, _ in parts]), within)
    return mix(hashes)


def _read(line: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Code points in lower case, 0 for those that divide words, and whether a word begins with each."""
    try:
        data = line.encode("latin-1").translate(_lower(1).tobytes())
    except UnicodeEncodeError:
        return _read_wide(line)
    low = np.frombuffer(data, dtype=np.uint8)
    begins = low != 0
    begins[1:] &= low[:-1] == 0
    return low, begins


def _read_wide(line: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    codes: NDArray[Any] = np.frombuffer(line.encode("utf-16-le", "surrogatepass"), dtype=np.uint16)
    if len(codes) != len(line):
        codes = np.frombuffer(line.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    rare = np.flatnonzero(codes > 0xFF)  # in most languages of Europe, quotes and dashes alone
    data = codes.astype(np.uint8).tobytes().translate(_lower(1).tobytes())
    low = np.frombuffer(data, dtype=np.uint8).astype(codes.dtype)
    low[rare] = np.take(_lower(codes.itemsize), codes[rare])
    begins = low != 0
    inside = begins[:-1].copy()
    if int(codes.max()) >= SINGLE[0][0]:
        single = np.take(_single(), codes)
        inside &= ~(single[1:] | single[:-1])
    begins[1:] &= ~inside
    return low, begins


def _short_runs(
    words: NDArray[np.uint64], starts: NDArray[np.int64], lengths: NDArray[np.int64], size: int
) -> NDArray[np.uint64]:
    """Texts of fewer words than a shingle has: all their words."""
    runs = np.zeros(len(starts), dtype=np.uint64)
    for offset in range(size):
        runs *= np.uint64(_RUN_BASE)
        runs += np.where(offset < lengths, words[np.minimum(starts + offset, len(words) - 1)], np.uint64(0))
    return runs


@functools.cache
def _lower(width: int) -> NDArray[Any]:
    """By code point of so many bytes: itself in lower case, or 0 where it divides words.

    Lower cases of characters that Unicode has never change; sigma has one form here, wherever it stands.
    """
    if width == 4:
        codes = np.arange(0x110000, dtype=np.uint32)
        cased: Iterable[int] = range(0x20000)
    else:
        codes = np.arange(1 << 8 * width, dtype=np.uint8 if width == 1 else np.uint16)
        cased = range(len(codes))
    for code in cased:
        low = chr(code).lower()
        if len(low) == 1:
            codes[code] = ord(low)
    if width > 1:
        codes[0x3C2] = 0x3C3
    for first, last in DIVIDING:
        codes[first : last + 1] = 0
    return codes


@functools.cache
def _single() -> NDArray[np.bool_]:
    single = np.zeros(0x110000, dtype=bool)
    for first, last in SINGLE:
        single[first : last + 1] = True
    return single


_known_powers: tuple[NDArray[np.uint64], NDArray[np.uint64]] | None = None


def _powers(count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Powers of the base and of its inverse in 2^64, at least ``count``."""
    global _known_powers
    if _known_powers is None or len(_known_powers[0]) < count:
        size = max(count, 2 * _CHUNK)
        made = []
        for base in (_WORD_BASE, pow(_WORD_BASE, -1, 1 << 64)):
            powers = np.full(size, base, dtype=np.uint64)
            powers[0] = 1
            made.append(np.multiply.accumulate(powers))
        _known_powers = made[0], made[1]
    return _known_powers
