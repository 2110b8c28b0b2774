"""Sets of strings that compiled loops look parts of a text up in.

Strings are told apart by a polynomial hash of their characters and compared where that agrees, so that no
collision can change a result. ``sums[i]`` is the hash of the first i characters, ``powers[i]`` the base to the i.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from treadle.text.english.compiled import compiled, entry, pointer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[np.uint32]
    Hashes = NDArray[np.uint64]
    Places = NDArray[np.int32]

BASE = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(1)
_HALF = np.uint64(32)
SIEVE_BITS = 15
SIEVE_SHIFT = np.uint64(32 - SIEVE_BITS)


class Strings(NamedTuple):
    """A set of strings: hash slots (a power of two), and the characters of each, end to end."""

    sieve: NDArray[np.uint8]  # bits of hashes that may be in it; what is not there is not in it
    slots: Places
    hashes: Hashes
    offsets: Places
    characters: Codes
    mask: int  # slots less one


class Rules(NamedTuple):
    """Everything the splitter looks up."""

    bits: Codes
    specials: Strings
    special_offsets: Places  # of each special case in special_lengths
    special_lengths: Places  # of its words, in characters
    longest_special: int
    units: Strings
    longest_unit: int
    phrase_words: Strings
    longest_phrase_word: int
    nodes: NDArray[np.int16]  # by node and word; node 0 is the root, and where nothing follows
    final: NDArray[np.int8]  # whether a phrase ends at a node


class Text(NamedTuple):
    """A text with the rules it is split by; inside compiled loops, where all of it is pointers."""

    codes: Codes
    sums: Hashes
    powers: Hashes
    rules: Rules


@compiled
def point_at(strings: Strings) -> Strings:
    """The same set as pointers."""
    return Strings(
        pointer(strings.sieve),
        pointer(strings.slots),
        pointer(strings.hashes),
        pointer(strings.offsets),
        pointer(strings.characters),
        strings.mask,
    )


@compiled
def text_of(codes: Codes, sums: Hashes, powers: Hashes, rules: Rules) -> Text:
    """Pointers to all of it."""
    return Text(
        pointer(codes),
        pointer(sums),
        pointer(powers),
        Rules(
            pointer(rules.bits),
            point_at(rules.specials),
            pointer(rules.special_offsets),
            pointer(rules.special_lengths),
            rules.longest_special,
            point_at(rules.units),
            rules.longest_unit,
            point_at(rules.phrase_words),
            rules.longest_phrase_word,
            pointer(rules.nodes),
            pointer(rules.final),
        ),
    )


@entry
def hash_characters(codes: Codes) -> Hashes:
    """The hashes of all beginnings, of shape (n + 1,)."""
    sums = np.empty(len(codes) + 1, np.uint64)
    value = np.uint64(0)
    sums[0] = value
    for place in range(len(codes)):
        value = value * BASE + np.uint64(codes[place]) + _ONE
        sums[place + 1] = value
    return sums


@compiled
def number_of(strings: Strings, text: Text, start: int, end: int) -> int:
    """The number of the string that the text has from ``start`` to ``end``, or -1."""
    codes = text.codes
    length = end - start
    value = text.sums[end] - text.sums[start] * text.powers[length]
    value_bits = (value * BASE) >> _HALF  # short strings have empty high bits
    bit = np.int64(value_bits >> SIEVE_SHIFT)
    if strings.sieve[bit >> 3] >> (bit & 7) & 1 == 0:
        return -1
    slot = np.int64(value_bits) & strings.mask
    while True:
        found = strings.slots[slot]
        if found < 0:
            return -1
        if strings.hashes[found] == value:
            first = strings.offsets[found]
            if strings.offsets[found + 1] - first == length:
                place = 0
                while place < length and strings.characters[first + place] == codes[start + place]:
                    place += 1
                if place == length:
                    return int(found)
        slot = (slot + 1) & strings.mask


@compiled
def special_case(text: Text, start: int, end: int) -> int:
    """The number of a special case, or -1."""
    if end - start > text.rules.longest_special:
        return -1
    return number_of(text.rules.specials, text, start, end)
