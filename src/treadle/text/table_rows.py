"""Rows of a table that come as Python's own values: Parquet, databases, data sets of other libraries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from treadle.text.rows import BadRow, Limits, Row, RowError, check_value


def table_row(number: int, value: Mapping[str, Any], limits: Limits) -> Row | BadRow:
    """A row with what JSON can carry; its offset is its place, its bytes are its JSON. ``number`` counts from 1."""
    try:
        plain = json.loads(json.dumps(value, default=_plain, ensure_ascii=False), parse_constant=_nothing)
        raw = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        if len(raw) > limits.row_bytes:
            raise RowError(f"longer than {limits.row_bytes} bytes")
        check_value(plain, limits.depth)
    except UnicodeEncodeError:
        return BadRow(number - 1, f"row {number}: a text that is not UTF-8, or half of a surrogate pair")
    except (ValueError, TypeError, RecursionError) as error:
        reason = str(error) if isinstance(error, RowError) else "holds a value that JSON has no form for"
        return BadRow(number - 1, f"row {number}: {reason}")
    return Row(number - 1, number, raw, plain)


def _nothing(_name: str) -> None:
    """Not-a-number stands for a missing value in tables."""


def _plain(value: Any) -> Any:
    """Dates and times as ISO 8601, decimals as text; bytes have no text and are refused."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("bytes")
    return str(value)
