"""Identifiers that sort by time: a prefix and a ULID (48 bits of milliseconds, 80 random bits, Crockford base 32)."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_id(prefix: str) -> str:
    """``<prefix>-<26 characters>``; two made in the same millisecond differ but are in no order."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return prefix + "-" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
