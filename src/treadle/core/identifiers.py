"""Identifiers that sort by time: a prefix and a ULID (48 bits of milliseconds, 80 random bits, Crockford base 32).

The form is that of https://github.com/ulid/spec, 26 characters, upper case.
"""

from __future__ import annotations

import secrets
import threading
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_LENGTH = 26
_lock = threading.Lock()
_last = 0


def new_id(prefix: str) -> str:
    """``<prefix>-<26 characters>``, greater than every earlier one of this process, whatever the clock does."""
    global _last
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    with _lock:
        if number <= _last:  # two in one millisecond, or a clock that was put back
            number = _last + 1 + secrets.randbits(40)  # by chance: two forked processes must not agree
        _last = number
    return prefix + "-" + "".join([_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5)])


def time_of(identifier: str) -> int | None:
    """The milliseconds since 1970 in an identifier; None when it is not of this form."""
    text = identifier.rpartition("-")[2]
    if len(text) != _LENGTH or text[0] > "7" or any(character not in _VALUES for character in text):
        return None
    return _number(text[:10])


def number_of(identifier: str) -> int:
    """All 128 bits of an identifier; ``ValueError`` when it is not of this form."""
    if time_of(identifier) is None:
        raise ValueError(f"{identifier[:80]!r} is no identifier")
    return _number(identifier.rpartition("-")[2])


def _number(text: str) -> int:
    number = 0
    for character in text:
        number = number << 5 | _VALUES[character]
    return number


def hex_of(identifier: str) -> str:
    """The 128 bits of an identifier as 32 hexadecimal digits, for programs that name things so."""
    number = 0
    for character in identifier.rpartition("-")[2]:
        number = number << 5 | _VALUES[character]
    return f"{number:032x}"


def id_of_hex(prefix: str, digits: str) -> str | None:
    """The identifier with those 128 bits; None for anything but 32 hexadecimal digits in lower case."""
    if len(digits) != 32 or any(digit not in "0123456789abcdef" for digit in digits):
        return None
    number = int(digits, 16)
    return prefix + "-" + "".join([_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5)])


def id_at(prefix: str, milliseconds: int, digest: str) -> str:
    """The identifier of something that happened elsewhere: its time, and 80 bits of a digest in hexadecimal.

    The same time and digest give the same identifier, so bringing a thing in twice is found out.
    """
    number = (milliseconds & (1 << 48) - 1) << 80 | int(digest.rpartition(":")[2][:20], 16)
    return prefix + "-" + "".join([_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5)])
