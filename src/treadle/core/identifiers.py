"""Identifiers that sort by time: a prefix and a ULID (48 bits of milliseconds, 80 random bits, Crockford base 32).

The form is that of https://github.com/ulid/spec, 26 characters, upper case.
"""

from __future__ import annotations

import os
import re
import threading
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS = range(120, -1, -10)
_FORM = re.compile(f"[0-7][{_ALPHABET}]{{25}}\\Z")
_lock = threading.Lock()
_last = 0
_random = b""
_used = 0


def _random_bits(length: int) -> int:
    """Of so many bytes, from the system; fetched for some hundred ids at once, under the lock."""
    global _random, _used
    if _used + length > len(_random):
        _random, _used = os.urandom(4096), 0
    _used += length
    return int.from_bytes(_random[_used - length : _used], "big")


def _forked() -> None:
    """A new process takes random bits of its own, and a lock that nobody holds."""
    global _random, _lock
    _random, _lock = b"", threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def new_id(prefix: str) -> str:
    """``<prefix>-<26 characters>``, greater than every earlier one of this process, whatever the clock does."""
    global _last
    moment = (time.time_ns() // 1_000_000) << 80
    with _lock:
        number = moment | _random_bits(10)
        if number <= _last:  # two in one millisecond, or a clock that was put back
            number = _last + 1 + _random_bits(5)  # by chance: two forked processes must not agree
        _last = number
    return f"{prefix}-{_text(number)}"


def time_of(identifier: str) -> int | None:
    """The milliseconds since 1970 in an identifier; None when it is not of this form."""
    text = identifier.rpartition("-")[2]
    return _number(text[:10]) if _FORM.match(text) else None


def number_of(identifier: str) -> int:
    """All 128 bits of an identifier; ``ValueError`` when it is not of this form."""
    if time_of(identifier) is None:
        raise ValueError(f"{identifier[:80]!r} is no identifier")
    return _number(identifier.rpartition("-")[2])


def _text(number: int) -> str:
    """128 bits, ten at a time: an id is made for every request."""
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


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
    return f"{prefix}-{_text(number)}"


def id_at(prefix: str, milliseconds: int, digest: str) -> str:
    """The identifier of something that happened elsewhere: its time, and 80 bits of a digest in hexadecimal.

    The same time and digest give the same identifier, so bringing a thing in twice is found out.
    """
    number = (milliseconds & (1 << 48) - 1) << 80 | int(digest.rpartition(":")[2][:20], 16)
    return f"{prefix}-{_text(number)}"
