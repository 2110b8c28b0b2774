"""Rows of Parquet as plain values; pages that cannot be read cost their row group only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from treadle.text.arrow import pyarrow
from treadle.text.rows import BadRow, Limits, Row, repeated
from treadle.text.table_rows import table_row


def read_parquet(stream: BinaryIO, limits: Limits) -> Iterator[Row | BadRow]:
    """Rows of a Parquet file; offset and number are the row's place, since its bytes lie apart. ``raw`` is
    its JSON.
    """
    pa, pq = pyarrow()
    try:
        file = pq.ParquetFile(stream)
        twice = repeated(file.schema_arrow.names)
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    except (pa.ArrowException, OSError, ValueError) as error:
        yield BadRow(0, f"not a Parquet file that can be read: {type(error).__name__}")
        return
    if twice:
        yield BadRow(0, twice)
        return
    first = 0
    for index, group in enumerate(groups):
        place = first
        try:
            for batch in file.iter_batches(batch_size=256, row_groups=[index]):
                for value in batch.to_pylist():
                    place += 1
                    yield table_row(place, value, limits)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            last = first + group.num_rows
            yield BadRow(place, f"rows {place + 1} to {last}: pages cannot be read: {type(error).__name__}")
        first += group.num_rows
