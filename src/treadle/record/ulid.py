"""Identifiers that sort by the time they were made: 48 bits of milliseconds, 80 of chance, in Crockford's base 32.

The form is the ULID specification's (https://github.com/ulid/spec), 26 characters, upper case.
"""

from __future__ import annotations

import os
import threading
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 26
_lock = threading.Lock()
_last = 0


def new_ulid() -> str:
    """A fresh identifier, greater than every earlier one of this process even within one millisecond."""
    global _last
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    with _lock:
        # A clock that steps back, or two calls in one millisecond, must not break the order.
        if value <= _last:
            value = _last + 1
        _last = value
    return "".join([ALPHABET[value >> shift & 31] for shift in range(125, -5, -5)])


def is_ulid(text: str) -> bool:
    """True for 26 characters of the alphabet that fit in 128 bits."""
    return len(text) == LENGTH and text[0] <= "7" and all(c in ALPHABET for c in text)
