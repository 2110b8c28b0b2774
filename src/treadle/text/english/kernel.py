"""The splitter's inner loops, over code points: what ``spacy.tokenizer`` does with regular expressions, as one pass.

Strings are told apart by a polynomial hash of their characters and compared where that agrees, so that no
collision can change a result. ``sums[i]`` is the hash of the first i characters, ``powers[i]`` the base to the i.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from treadle.text.english.addresses import is_address
from treadle.text.english.characters import (
    ALPHA,
    BEFORE_DOT,
    DOT,
    INSIDE,
    LOWER,
    PREFIX,
    QUOTE,
    SPACE,
    SUFFIX,
    SYMBOL,
    UNIT_END,
    UPPER,
)
from treadle.text.english.compiled import compiled, pointer

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


@compiled
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
                    return np.int64(found)
        slot = (slot + 1) & strings.mask


@compiled
def special_case(text: Text, start: int, end: int) -> int:
    """The number of a special case, or -1."""
    if end - start > text.rules.longest_special:
        return -1
    return number_of(text.rules.specials, text, start, end)


@compiled
def _prefix(text: Text, start: int, end: int) -> int:
    codes, bits = text.codes, text.rules.bits
    first = codes[start]
    if bits[first] & PREFIX:
        return 1
    if first == 46:  # two full stops or more
        place = start + 1
        while place < end and codes[place] == 46:
            place += 1
        return place - start if place - start > 1 else 0
    if first == 43:  # + but not before a number
        return 0 if start + 1 < end and 48 <= codes[start + 1] <= 57 else 1
    if end - start > 1 and codes[start + 1] == 36 and (first == 65 or first == 67):  # noqa: PLR1714 (A$ C$)
        return 2
    if end - start > 2 and first == 85 and codes[start + 1] == 83 and codes[start + 2] == 36:  # US$
        return 3
    return 0


@compiled
def _suffix(text: Text, start: int, end: int) -> int:
    if start >= end:
        return 0
    codes, bits = text.codes, text.rules.bits
    last = codes[end - 1]
    kind = bits[last]
    before = codes[end - 2] if end - start > 1 else np.uint32(0)
    if kind & DOT:
        place = end - 1
        while place > start and codes[place - 1] == 46:
            place -= 1
        if end - place > 1:
            return end - place
        if place > start and bits[before] & BEFORE_DOT:
            return 1
        if place - 1 > start:
            earlier = codes[end - 3]
            if bits[before] & UPPER and bits[earlier] & UPPER:
                return 1
            if earlier == 176 and (before == 70 or before == 67 or before == 75):  # noqa: PLR1714 (degrees)
                return 1
        return 0
    best = 0
    if kind & SUFFIX:
        best = 2 if last == 8230 and before == 8230 else 1
    elif (last == 115 or last == 83) and (before == 39 or before == 8217):  # noqa: PLR1714 ('s)
        best = 2
    if kind & UNIT_END:
        place = end - 2
        while place >= start and end - 1 - place <= text.rules.longest_unit:
            if 48 <= codes[place] <= 57:
                length = end - 1 - place
                if length > best and number_of(text.rules.units, text, place + 1, end) >= 0:
                    best = length
                break
            place -= 1
    return best


@compiled
def _infix(text: Text, start: int, place: int, end: int) -> int:
    """The length of what splits the word ``codes[start:end]`` at ``place``; 0 where nothing does."""
    codes, bits = text.codes, text.rules.bits
    code = codes[place]
    kind = bits[code]
    if kind & SYMBOL or code == 8230:
        return 1
    if code == 46 and place + 1 < end and codes[place + 1] == 46:
        after = place + 2
        while after < end and codes[after] == 46:
            after += 1
        return after - place
    if place == start or place + 1 >= end:
        return 0
    before, after = codes[place - 1], codes[place + 1]
    left, right = bits[before], bits[after]
    digit = 48 <= before <= 57
    if code == 46:
        return 1 if left & (LOWER | QUOTE) and right & (UPPER | QUOTE) else 0
    if code == 44:
        return 1 if left & ALPHA and right & ALPHA else 0
    if digit and (code == 43 or code == 45 or code == 42 or code == 94) and (48 <= after <= 57 or after == 45):  # noqa: PLR1714
        return 1
    if not (digit or left & ALPHA):
        return 0
    if code == 45 or code == 8212:  # noqa: PLR1714 (- -- --- and one or two dashes)
        longest = 3 if code == 45 else 2
        length = 1
        while length <= longest and place + length < end:
            if bits[codes[place + length]] & ALPHA:
                return length
            if codes[place + length] != code:
                return 0
            length += 1
        return 0
    if code == 8211 or code == 126 or code == 58 or code == 60 or code == 61 or code == 62 or code == 47:  # noqa: PLR1714
        return 1 if right & ALPHA else 0
    return 0


@compiled
def put_special(text: Text, found: int, start: int, starts: Places, ends: Places, count: int) -> int:
    """Write the words of special case ``found``; how many words there are then."""
    rules = text.rules
    for number in range(rules.special_offsets[found], rules.special_offsets[found + 1]):
        starts[count] = start
        start += rules.special_lengths[number]
        ends[count] = start
        count += 1
    return count


@compiled
def _put_middle(text: Text, start: int, end: int, starts: Places, ends: Places, count: int) -> int:
    """What is left between prefixes and suffixes: one word, or several where infixes split it."""
    codes, bits = text.codes, text.rules.bits
    seen = np.uint32(0)
    for place in range(start, end):
        seen |= bits[codes[place]]
    first = start
    if seen & INSIDE and not (seen & DOT and is_address(codes, start, end, bits)):
        place = start
        while place < end:
            length = _infix(text, start, place, end) if bits[codes[place]] & INSIDE else 0
            if length == 0:
                place += 1
                continue
            if place > start:
                if place > first:
                    starts[count], ends[count] = first, place
                    count += 1
                starts[count], ends[count] = place, place + length
                count += 1
                first = place + length
            place += length
    if first < end:
        starts[count], ends[count] = first, end
        count += 1
    return count


@compiled
def _put_chunk(
    text: Text, start: int, end: int, specials: bool, starts: Places, ends: Places, count: int, cuts: Places
) -> int:
    """The words of what stands between two spaces."""
    found = -1
    pending = 0  # ends of suffixes, the outermost first
    last = -1
    while start < end and end - start != last:
        if specials:
            found = special_case(text, start, end)
            if found >= 0:
                break
        last = end - start
        suffix = 0
        prefix = _prefix(text, start, end)
        if prefix and specials and start + prefix < end:
            found = special_case(text, start + prefix, end)
        if found < 0:
            suffix = _suffix(text, start + prefix, end)
            if suffix and specials and end - suffix > start:
                found = special_case(text, start, end - suffix)
                if found >= 0:
                    prefix = 0
        if prefix:
            starts[count], ends[count] = start, start + prefix
            count += 1
            start += prefix
        if suffix:
            cuts[pending] = end
            pending += 1
            end -= suffix
        if found >= 0:
            break
    if found >= 0:
        count = put_special(text, found, start, starts, ends, count)
    elif start < end:
        count = _put_middle(text, start, end, starts, ends, count)
    while pending:
        pending -= 1
        starts[count], ends[count] = end, cuts[pending]
        end = cuts[pending]
        count += 1
    return count


@compiled
def split(text: Text, low: int, high: int, specials: bool, starts: Places, ends: Places, cuts: Places) -> int:
    """Write where each word from ``low`` to ``high`` starts and ends; how many there are. A run of white space beyond one
    blank is a word too.
    """
    codes, bits = text.codes, text.rules.bits
    count = 0
    place = low
    while place < high:
        start = place
        blank = bits[codes[place]] & SPACE
        while place < high and bits[codes[place]] & SPACE == blank:
            place += 1
        if not blank:
            count = _put_chunk(text, start, place, specials, starts, ends, count, cuts)
            continue
        if codes[start] == 32 and start > low:
            start += 1
        if start < place:
            starts[count], ends[count] = start, place
            count += 1
    return count
