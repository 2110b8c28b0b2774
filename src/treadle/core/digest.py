"""Digests and the one canonical form that everything hashed is written in.

Objects are named by BLAKE3 (``b3:`` and 64 hexadecimal digits); the ledger's tree uses SHA-256 as RFC 6962 asks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from blake3 import blake3

PREFIX = "b3:"
_DIGEST = re.compile(r"b3:[0-9a-f]{64}\Z")
_SCAN: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_PIECE = 2 << 20  # bytes read at a time; fits the processor's cache
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
# What the encoder makes anew for each value, made once: that is most of what a small value costs.
_make_encoder = getattr(json.encoder, "c_make_encoder", None)
_encoded: Callable[[Any, int], Iterable[str]] = (
    _make_encoder(None, _ENCODER.default, json.encoder.encode_basestring, None, ":", ",", True, False, False)
    if _make_encoder
    else lambda value, _: _ENCODER.iterencode(value)
)


def blake3_bytes(data: bytes) -> str:
    """The digest of bytes, as ``b3:<64 hex>``."""
    return PREFIX + blake3(data).hexdigest()


def blake3_file(path: str | Path) -> str:
    """The digest of a file's bytes, by several threads when it is large.

    Read piece by piece: a memory map is a third quicker, and shows as memory of this process to its full length.
    """
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (hot)
        data = file.read(_PIECE)
        if len(data) < _PIECE:
            return blake3_bytes(data + file.read())
        hasher = blake3(data, max_threads=blake3.AUTO)
        buffer = bytearray(_PIECE)
        view = memoryview(buffer)
        while count := file.readinto(buffer):
            hasher.update(view[:count])
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
    """JSON with sorted keys, no spaces, UTF-8; not-a-number is refused (``ValueError``), what holds itself as well
    (``RecursionError``).

    Half a surrogate pair, which UTF-8 cannot carry, is written as its JSON escape, so it comes back as it was.
    """
    return "".join(_encoded(value, 0)).encode("utf-8", "backslashreplace")


def parsed(text: str) -> Any:
    """What a text of canonical JSON holds, in half the time of ``json.loads``; ``ValueError`` when it is none."""
    try:
        found, end = _SCAN(text, 0)
    except StopIteration:
        raise ValueError("no JSON") from None
    if end != len(text):
        raise ValueError("more than one value")
    return found


def is_digest(text: str) -> bool:
    """True for a whole ``b3:<64 hex>``."""
    return _DIGEST.match(text) is not None
