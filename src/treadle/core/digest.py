"""Digests and the one canonical form that everything hashed is written in.

Objects are named by BLAKE3 (``b3:`` and 64 hexadecimal digits); the ledger's tree uses SHA-256 as RFC 6962 asks.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from blake3 import blake3

PREFIX = "b3:"
_DIGEST = re.compile(r"b3:[0-9a-f]{64}\Z")
_MAPPED_FROM = 1 << 20  # bytes; below this a plain read is quicker than a memory map
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def blake3_bytes(data: bytes) -> str:
    """The digest of bytes, as ``b3:<64 hex>``."""
    return PREFIX + blake3(data).hexdigest()


def blake3_file(path: Path) -> str:
    """The digest of a file's bytes, read through a memory map when it is large."""
    if path.stat().st_size < _MAPPED_FROM:
        return blake3_bytes(path.read_bytes())
    hasher = blake3(max_threads=blake3.AUTO)
    hasher.update_mmap(path)
    return PREFIX + hasher.hexdigest()


def keyed_digest(key: bytes, *parts: str) -> str:
    """A digest nobody can recompute or guess at without the 32-byte key; parts are length-prefixed."""
    hasher = blake3(key=key)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "big"))
        hasher.update(data)
    return "k3:" + hasher.hexdigest()[:40]


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces, UTF-8; not-a-number is refused (``ValueError``).

    Half a surrogate pair, which UTF-8 cannot carry, is written as its JSON escape, so it comes back as it was.
    """
    return _ENCODER.encode(value).encode("utf-8", "backslashreplace")


def is_digest(text: str) -> bool:
    """True for a whole ``b3:<64 hex>``."""
    return _DIGEST.match(text) is not None
