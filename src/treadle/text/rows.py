"""Rows out of files, one at a time, and what cannot be read told apart from what can: a bad row never takes
its neighbors with it.

Offsets count bytes of what is read (after decompression), and point at the first byte of a row. No reason
quotes what is in a row.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

BOM = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one row may be. Bytes of the row as it lies in the file, and how deep JSON may nest."""

    row_bytes: int = 16_000_000
    depth: int = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it starts, its bytes as they are, and what they mean. ``number`` counts from 1."""

    offset: int
    number: int
    raw: bytes
    value: Any


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row, or the rest of a file, that could not be read."""

    offset: int
    reason: str


class RowError(ValueError):
    """Why a row is bad, in words that can be shown."""


def repeated(names: Iterable[str]) -> str:
    """What to say of columns of which several have one name, and only the last would be kept; else empty."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not twice:
        return ""
    more = f" and {len(twice) - 1} more" if len(twice) > 1 else ""
    return f"more than one column is called {twice[0][:60]!r}{more}; rename all but one"


def decoded(raw: bytes, encoding: str) -> str:
    """The text of some bytes; ``RowError`` where they are none in this encoding."""
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise RowError(f"not {encoding} at byte {error.start + 1}; if it is another encoding, set `encoding`") from None


def check_value(value: Any, depth: int) -> None:
    """Refuse what cannot be stored: nesting too deep, half of a surrogate pair, a number that is infinite."""
    level = [value]
    for _ in range(depth + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, float) and not math.isfinite(item):
                raise RowError("a number too large to be one")
            elif isinstance(item, dict):
                for key in item:
                    _check_text(key)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return
        level = below
    raise RowError(f"nested deeper than {depth}")


def _check_text(text: str) -> None:
    if not text.isascii() and _SURROGATE.search(text):
        raise RowError("half of a surrogate pair, which is no text")


def lines(stream: BinaryIO, longest: int) -> Iterator[tuple[int, bytes | None]]:
    """Offset and bytes of each line; None in place of one that is too long, which is never held whole."""
    offset = 0
    while line := stream.readline(longest + 1):
        start = offset
        offset += len(line)
        if len(line) > longest and not line.endswith(b"\n"):
            while more := stream.readline(1 << 20):
                offset += len(more)
                if more.endswith(b"\n"):
                    break
            yield start, None
        elif start == 0 and line.startswith(BOM):
            yield len(BOM), line[len(BOM) :]
        else:
            yield start, line
