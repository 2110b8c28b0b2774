"""Web and mail addresses, which stay one word: the pattern of spaCy's English tokenizer as loops over code points.

The pattern is Diego Perini's (MIT license), as spaCy 3.8 changed it; a test holds this to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from treadle.text.english.characters import DIGIT, HOST, LOWER, WORD
from treadle.text.english.compiled import compiled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Codes = NDArray[np.uint32]


@compiled
def _tail(codes: Codes, place: int, end: int, bits: Codes) -> bool:
    """Whether a port, a path, both or nothing is left of an address."""
    if place < end and codes[place] == 58:
        digits = 0
        place += 1
        while place < end and bits[codes[place]] & DIGIT:
            place += 1
            digits += 1
        if digits < 2 or digits > 5:
            return False
    return place == end or codes[place] == 47 or codes[place] == 63 or codes[place] == 35


@compiled
def _domain(codes: Codes, start: int, end: int, bits: Codes) -> bool:
    """Labels with dots between them, the last a top-level domain."""
    place = start
    labels = 0
    while place < end:
        if labels:
            after = place
            while after < end and bits[codes[after]] & LOWER:
                after += 1
            if 2 <= after - place <= 63 and _tail(codes, after, end, bits):
                return True
        after = place
        while after < end and (bits[codes[after]] & HOST or codes[after] == 95 or codes[after] == 45):
            after += 1
        if after - place < 1 or after - place > 64 or after >= end or codes[after] != 46:
            return False
        if not (bits[codes[place]] & HOST and bits[codes[after - 1]] & HOST):
            return False
        labels += 1
        place = after + 1
    return False


@compiled
def _groups(codes: Codes, place: int, end: int, bits: Codes, count: int) -> bool:
    """Whether ``count`` times a full stop and one to three digits follow."""
    for _ in range(count):
        if place >= end or codes[place] != 46:
            return False
        place += 1
        digits = 0
        while digits < 3 and place < end and bits[codes[place]] & DIGIT:
            place += 1
            digits += 1
        if digits == 0:
            return False
    return True


@compiled
def _octet(codes: Codes, place: int, length: int, number: int) -> bool:
    """Whether the digits may be part ``number`` of a public address."""
    first = codes[place]
    positive = 49 <= first <= 57
    if length < 3:
        return length > 0 and (positive or number == 1 or number == 2)
    if length > 3:
        return False
    second, third = codes[place + 1], codes[place + 2]
    if first == 49:
        return True
    if first != 50:
        return False
    if number == 0:
        return bool(second == 48 or second == 49 or (second == 50 and 48 <= third <= 51))
    return bool(48 <= second <= 52 or (second == 53 and 48 <= third <= (52 if number == 3 else 53)))


@compiled
def _number_address(codes: Codes, start: int, end: int, bits: Codes) -> bool:
    """A public IPv4 address."""
    place = start
    for number in range(4):
        after = place
        while after < end and bits[codes[after]] & DIGIT:
            after += 1
        if not _octet(codes, place, after - place, number):
            return False
        if number == 3:
            if not _tail(codes, after, end, bits):
                return False
        elif after >= end or codes[after] != 46:
            return False
        place = after + 1
    return not _private(codes, start, end, bits)


@compiled
def _private(codes: Codes, start: int, end: int, bits: Codes) -> bool:
    """Whether a valid address is of a network of one's own: 10, 127, 169.254, 192.168, 172.16 to 172.31."""
    if codes[start] != 49:
        return False
    two, three, four = codes[start + 1], codes[start + 2], codes[start + 3]
    if (two == 48 and three == 46) or (two == 50 and three == 55 and four == 46):
        return True
    five, six, seven = codes[start + 4], codes[start + 5], codes[start + 6]
    if two == 54 and three == 57:
        return bool(five == 50 and six == 53 and seven == 52 and _groups(codes, start + 7, end, bits, 2))
    if two == 57 and three == 50:
        return bool(five == 49 and six == 54 and seven == 56 and _groups(codes, start + 7, end, bits, 2))
    if two == 55 and three == 50:
        among = (five == 49 and 54 <= six <= 57) or (five == 50 and bits[six] & DIGIT > 0)
        among = among or (five == 51 and 48 <= six <= 49)
        return bool(among and _groups(codes, start + 6, end, bits, 2))
    return False


@compiled
def is_address(codes: Codes, start: int, end: int, bits: Codes) -> bool:
    """Whether it all is a web or mail address."""
    if _number_address(codes, start, end, bits) or _domain(codes, start, end, bits):
        return True
    place = start
    while place < end and (bits[codes[place]] & WORD or codes[place] == 43 or codes[place] == 45 or codes[place] == 46):
        place += 1
    if place - start >= 2 and place + 2 < end and codes[place] == 58 and codes[place + 1] == 47 == codes[place + 2]:
        place += 3
        if _number_address(codes, place, end, bits) or _domain(codes, place, end, bits):
            return True
    for mark in range(start + 1, end):
        if codes[mark] == 64 and (_number_address(codes, mark + 1, end, bits) or _domain(codes, mark + 1, end, bits)):
            return True
    return False
