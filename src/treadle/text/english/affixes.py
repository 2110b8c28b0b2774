"""What comes off the front and the end of a word, and what splits it in the middle, by spaCy's English rules.

Numbers are code points: 36 ``$``, 39 ``'``, 43 ``+``, 44 ``,``, 45 ``-``, 46 full stop, 48 to 57 digits, 94 ``^``,
126 ``~``, 8211 and 8212 dashes, 8217 the curly apostrophe, 8230 the ellipsis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from treadle.text.english.characters import (
    ALPHA,
    BEFORE_DOT,
    DOT,
    LOWER,
    PREFIX,
    QUOTE,
    SUFFIX,
    SYMBOL,
    UNIT_END,
    UPPER,
)
from treadle.text.english.compiled import compiled
from treadle.text.english.strings import number_of

if TYPE_CHECKING:
    from treadle.text.english.strings import Text


@compiled
def prefix_length(text: Text, start: int, end: int) -> int:
    """Characters that come off the front of a word."""
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
    if end - start > 1 and codes[start + 1] == 36 and (first == 65 or first == 67):
        return 2
    if end - start > 2 and first == 85 and codes[start + 1] == 83 and codes[start + 2] == 36:  # US$
        return 3
    return 0


@compiled
def _full_stops(text: Text, start: int, end: int) -> int:
    """How many full stops come off the end of a word that ends with one."""
    codes, bits = text.codes, text.rules.bits
    place = end - 1
    while place > start and codes[place - 1] == 46:
        place -= 1
    if end - place > 1 or place == start:
        return end - place if end - place > 1 else 0
    before = codes[end - 2]
    if bits[before] & BEFORE_DOT:
        return 1
    if place - 1 == start:
        return 0
    earlier = codes[end - 3]
    degrees = earlier == 176 and (before == 70 or before == 67 or before == 75)
    return 1 if degrees or bits[before] & bits[earlier] & UPPER else 0


@compiled
def _unit(text: Text, start: int, end: int) -> int:
    """Characters of a unit after a digit at the end of a word."""
    codes = text.codes
    place = end - 2
    while place >= start and end - 1 - place <= text.rules.longest_unit:
        if 48 <= codes[place] <= 57:
            return end - 1 - place if number_of(text.rules.units, text, place + 1, end) >= 0 else 0
        place -= 1
    return 0


@compiled
def suffix_length(text: Text, start: int, end: int) -> int:
    """Characters that come off the end of a word."""
    if start >= end:
        return 0
    codes = text.codes
    last = codes[end - 1]
    kind = text.rules.bits[last]
    if kind & DOT:
        return _full_stops(text, start, end)
    before = codes[end - 2] if end - start > 1 else np.uint32(0)
    best = 0
    if kind & SUFFIX:
        best = 2 if last == 8230 and before == 8230 else 1
    elif (last == 115 or last == 83) and (before == 39 or before == 8217):  # 's
        best = 2
    return max(best, _unit(text, start, end)) if kind & UNIT_END else best


@compiled
def _hyphens(text: Text, place: int, end: int, longest: int) -> int:
    """How many hyphens or dashes of one kind stand before a letter."""
    codes = text.codes
    length = 1
    while length <= longest and place + length < end:
        if text.rules.bits[codes[place + length]] & ALPHA:
            return length
        if codes[place + length] != codes[place]:
            return 0
        length += 1
    return 0


@compiled
def infix_length(text: Text, start: int, place: int, end: int) -> int:
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
        return 1 if left & right & ALPHA else 0
    if digit and (code == 43 or code == 45 or code == 42 or code == 94) and (48 <= after <= 57 or after == 45):
        return 1
    if not (digit or left & ALPHA):
        return 0
    if code == 45 or code == 8212:
        return _hyphens(text, place, end, 3 if code == 45 else 2)
    if code == 8211 or code == 126 or code == 58 or code == 47 or 60 <= code <= 62:
        return 1 if right & ALPHA else 0
    return 0
