"""The splitter's outer loop: white space, then what comes off both ends of a chunk, then what is in its middle.

One pass over code points that does what ``spacy.tokenizer`` does with regular expressions, chunk by chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from treadle.text.english.addresses import is_address
from treadle.text.english.affixes import infix_length, prefix_length, suffix_length
from treadle.text.english.characters import DOT, INSIDE, SPACE
from treadle.text.english.compiled import compiled
from treadle.text.english.strings import special_case

if TYPE_CHECKING:
    from treadle.text.english.strings import Places, Text


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
            length = infix_length(text, start, place, end) if bits[codes[place]] & INSIDE else 0
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
def _peeled(text: Text, start: int, end: int) -> tuple[int, int, int]:
    """What comes off both ends at once: characters of a prefix, of a suffix, and the special case that is left, or -1.
    A special case behind the prefix goes before one in front of the suffix.
    """
    prefix = prefix_length(text, start, end)
    if prefix and start + prefix < end:
        found = special_case(text, start + prefix, end)
        if found >= 0:
            return prefix, 0, found
    suffix = suffix_length(text, start + prefix, end)
    if suffix and end - suffix > start:
        found = special_case(text, start, end - suffix)
        if found >= 0:
            return 0, suffix, found
    return prefix, suffix, -1


@compiled
def _put_chunk(text: Text, start: int, end: int, starts: Places, ends: Places, count: int, cuts: Places) -> int:
    """The words of what stands between two spaces."""
    found = special_case(text, start, end)
    pending = 0  # ends of suffixes, the outermost first
    while found < 0 and start < end:
        prefix, suffix, found = _peeled(text, start, end)
        if prefix + suffix == 0:
            break
        if prefix:
            starts[count], ends[count] = start, start + prefix
            count += 1
            start += prefix
        if suffix:
            cuts[pending] = end
            pending += 1
            end -= suffix
        if found < 0:
            found = special_case(text, start, end)
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
def split(text: Text, low: int, high: int, starts: Places, ends: Places, cuts: Places) -> int:
    """Write where each word from ``low`` to ``high`` starts and ends; how many there are. White space beyond one blank
    is a word too.
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
            count = _put_chunk(text, start, place, starts, ends, count, cuts)
            continue
        if codes[start] == 32 and start > low:
            start += 1
        if start < place:
            starts[count], ends[count] = start, place
            count += 1
    return count
