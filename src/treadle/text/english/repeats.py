"""Runs of words that a text repeats: table A1 of Gopher (Rae et al. 2021), counted as datatrove 0.10 counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from treadle.text.english.compiled import compiled, entry
from treadle.text.english.strings import BASE, text_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from treadle.text.english.strings import Codes, Hashes, Places, Rules, Text

    Limits = NDArray[np.float64]

_ONE = np.uint64(1)
_HALF = np.uint64(32)
# A slot holds the place of a run in its lower half and a part of its hash in the upper.
_PLACE = np.uint64(0xFFFFFFFF)
_TAG = np.uint64(0x7FFFFFFF00000000)
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


@compiled
def _same(text: Text, starts: Places, ends: Places, one: int, other: int, characters: int) -> bool:
    """Whether so many characters are the same from word ``one`` on and from ``other`` on, without the blanks."""
    codes = text.codes
    here, there = starts[one], starts[other]
    for _ in range(characters):
        if codes[here] != codes[there]:
            return False
        here, there = here + 1, there + 1
        if here == ends[one]:
            one += 1
            here = starts[one] if one < len(starts) else 0
        if there == ends[other]:
            other += 1
            there = starts[other] if other < len(starts) else 0
    return True


@compiled
def _numbered(text: Text, starts: Places, ends: Places, hashes: Hashes, slots: Hashes) -> Places:
    """For each word the place where it stands first."""
    slots[:] = _EMPTY
    mask = len(slots) - 1
    numbers = np.empty(len(starts), np.int32)
    for place in range(len(starts)):
        length = ends[place] - starts[place]
        value = hashes[place] * BASE
        slot = np.int64(value >> _HALF) & mask
        entry = value & _TAG
        while True:
            held = slots[slot]
            if held == _EMPTY:
                slots[slot] = entry | np.uint64(place)
                numbers[place] = place
                break
            if held & _TAG == entry:
                first = int(np.int64(held & _PLACE))
                if ends[first] - starts[first] == length and _same(text, starts, ends, first, place, length):
                    numbers[place] = first
                    break
            slot = (slot + 1) & mask
    return numbers


@compiled
def _most(numbers: Places, size: int, slots: Hashes, counts: Places) -> tuple[int, int]:
    """Where the most frequent run of ``size`` words begins, the first of equals, and how often it occurs."""
    slots[:] = _EMPTY
    mask = len(slots) - 1
    most, where = 0, 0
    for place in range(len(numbers) - size + 1):
        value = np.uint64(0)
        for offset in range(size):
            value = (value + np.uint64(numbers[place + offset]) + _ONE) * BASE
            value ^= value >> _HALF
        value *= BASE
        slot = np.int64(value >> _HALF) & mask
        entry = value & _TAG
        first = place
        while True:
            held = slots[slot]
            if held == _EMPTY:
                slots[slot] = entry | np.uint64(place)
                counts[place] = 0
                break
            if held & _TAG == entry:
                earlier = int(np.int64(held & _PLACE))
                offset = 0
                while offset < size and numbers[earlier + offset] == numbers[place + offset]:
                    offset += 1
                if offset == size:
                    first = earlier
                    break
            slot = (slot + 1) & mask
        counts[first] += 1
        if counts[first] > most or (counts[first] == most and first < where):
            most, where = counts[first], first
    return where, most


@compiled
def _repeated(
    text: Text, starts: Places, ends: Places, numbers: Places, joined: Hashes, lengths: Places, powers: Hashes,
    size: int, slots: Hashes,
) -> int:  # fmt: skip
    """Characters in runs of ``size`` words that stood there before; runs that repeat one do not overlap. Runs are the
    same when they are without the blanks between their words.
    """
    slots[:] = _EMPTY
    mask = len(slots) - 1
    place, found = 0, 0
    while place < len(numbers) - size + 1:
        length = lengths[place + size] - lengths[place]
        value = (joined[place + size] - joined[place] * powers[length]) * BASE
        slot = np.int64(value >> _HALF) & mask
        entry = value & _TAG
        while True:
            held = slots[slot]
            if held == _EMPTY:
                slots[slot] = entry | np.uint64(place)
                place += 1
                break
            if held & _TAG == entry:
                first = int(np.int64(held & _PLACE))
                if lengths[first + size] - lengths[first] == length:
                    offset = 0
                    while offset < size and numbers[first + offset] == numbers[place + offset]:
                        offset += 1
                    if offset == size or _same(text, starts, ends, first, place, length):
                        found += length
                        place += size
                        break
            slot = (slot + 1) & mask
    return found


@compiled
def _longest(lengths: Places, size: int) -> int:
    """Characters of the longest run of ``size`` words with blanks between them."""
    longest = 0
    for place in range(len(lengths) - size):
        longest = max(longest, lengths[place + size] - lengths[place])
    return longest + size - 1


@entry
def repetition(
    codes: Codes, sums: Hashes, powers: Hashes, rules: Rules, starts: Places, ends: Places,
    top_sizes: Places, top_limits: Limits, repeated_sizes: Places, repeated_limits: Limits,
) -> tuple[int, int, float]:  # fmt: skip
    """The first limit that the text exceeds: 0 for none, 1 for the most frequent run and 2 for repeated runs; which of
    the limits; and its share of the text's characters. ``starts`` and ``ends`` are of words that are no white space.
    """
    text = text_of(codes, sums, powers, rules)
    count = len(starts)
    slot_count = 16
    while slot_count < 2 * count:
        slot_count *= 2
    slots = np.empty(slot_count, np.uint64)
    hashes = np.empty(count, np.uint64)
    joined = np.zeros(count + 1, np.uint64)
    lengths = np.zeros(count + 1, np.int32)
    for place in range(count):
        length = ends[place] - starts[place]
        hashes[place] = sums[ends[place]] - sums[starts[place]] * powers[length]
        joined[place + 1] = joined[place] * powers[length] + hashes[place]
        lengths[place + 1] = lengths[place] + length
    numbers = _numbered(text, starts, ends, hashes, slots)
    counts = np.empty(count, np.int32)
    bound, bound_size = count, 0  # no run is more frequent than one that it holds
    for which in range(len(top_sizes)):
        size = top_sizes[which]
        if count >= size:
            if size < bound_size:
                bound = count
            if bound * _longest(lengths, size) / len(codes) <= top_limits[which]:
                continue
            where, most = _most(numbers, size, slots, counts)
            bound, bound_size = most, size
            share = (lengths[where + size] - lengths[where] + size - 1) * most / len(codes)
            if share > top_limits[which]:
                return 1, which, share
    for which in range(len(repeated_sizes)):
        size = repeated_sizes[which]
        share = _repeated(text, starts, ends, numbers, joined, lengths, powers, size, slots) / len(codes)
        if share > repeated_limits[which]:
            return 2, which, share
    return 0, 0, 0.0
