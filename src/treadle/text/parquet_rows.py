"""Rows of Parquet as plain values; pages that cannot be read cost their row group only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from treadle.core.errors import MissingExtra
from treadle.text.rows import BadRow, Limits, Row, RowError, check_value


def read_parquet(stream: BinaryIO, limits: Limits) -> Iterator[Row | BadRow]:
    """Rows of a Parquet file; offset and number are the row's place, since its bytes lie apart. ``raw`` is
    its JSON.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra("pyarrow", extra="data") from None
    try:
        file = pq.ParquetFile(stream)
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    except (pa.ArrowException, OSError, ValueError) as error:
        yield BadRow(0, f"not a Parquet file that can be read: {type(error).__name__}")
        return
    first = 0
    for index, group in enumerate(groups):
        place = first
        try:
            for batch in file.iter_batches(batch_size=256, row_groups=[index]):
                for value in batch.to_pylist():
                    place += 1
                    yield _parquet_row(place, value, limits)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            last = first + group.num_rows
            yield BadRow(place, f"rows {place + 1} to {last}: pages cannot be read: {type(error).__name__}")
        first += group.num_rows


def _parquet_row(number: int, value: dict[str, Any], limits: Limits) -> Row | BadRow:
    try:
        plain = json.loads(json.dumps(value, default=_plain, ensure_ascii=False), parse_constant=_nothing)
        raw = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        if len(raw) > limits.row_bytes:
            raise RowError(f"longer than {limits.row_bytes} bytes")
        check_value(plain, limits.depth)
    except UnicodeEncodeError:
        return BadRow(number - 1, f"row {number}: half of a surrogate pair, which is no text")
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
