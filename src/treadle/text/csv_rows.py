"""Rows of CSV and TSV (RFC 4180), where a bad row or an open quote spoils no other."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import BinaryIO

from treadle.text.rows import BadRow, Limits, Row, RowError, decoded, lines, repeated


def read_csv(stream: BinaryIO, limits: Limits, encoding: str = "utf-8", delimiter: str = ",") -> Iterator[Row | BadRow]:
    """Rows of RFC 4180 as mappings from the first row's names; ``number`` is the line a row starts in.

    A quote that is never closed spoils its own line only: reading goes on at the next.
    """
    csv.field_size_limit(max(csv.field_size_limit(), limits.row_bytes))
    names: list[str] | None = None
    for item in _csv_records(stream, limits, encoding, delimiter):
        if isinstance(item, BadRow):
            yield item
            if names is None:
                return  # without the names no row can be read
            continue
        offset, number, raw, cells = item
        if names is None:
            names = cells
            twice = repeated(names)
            if twice:
                yield BadRow(offset, f"line {number}: {twice}")
                return
        elif len(cells) != len(names):
            yield BadRow(offset, f"line {number}: {len(cells)} columns where the first row names {len(names)}")
        else:
            yield Row(offset, number, raw, dict(zip(names, cells, strict=True)))


class _CsvLines:
    """Lines for ``csv.reader``, remembering those of the record being read so that they can be read again."""

    def __init__(self, stream: BinaryIO, limits: Limits, encoding: str) -> None:
        self._lines = lines(stream, limits.row_bytes)
        self._limits = limits
        self._encoding = encoding
        self.record: list[tuple[int, int, bytes | None]] = []  # offset, line number, bytes
        self._again: list[tuple[int, int, bytes | None]] = []
        self._number = self._size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._size > self._limits.row_bytes:
            raise StopIteration  # the reader then sees a quote that is never closed
        if self._again:
            entry = self._again.pop()
        else:
            offset, line = next(self._lines)
            self._number += 1
            entry = (offset, self._number, line)
        self.record.append(entry)
        if entry[2] is None:
            raise RowError(f"longer than {self._limits.row_bytes} bytes")
        self._size += len(entry[2])
        return decoded(entry[2], self._encoding)

    def next_record(self) -> None:
        """The lines that follow belong to another record."""
        self.record, self._size = [], 0

    def keep_first(self) -> None:
        """Put back every line of the record but the first."""
        self._again.extend(reversed(self.record[1:]))


def _csv_records(
    stream: BinaryIO, limits: Limits, encoding: str, delimiter: str
) -> Iterator[tuple[int, int, bytes, list[str]] | BadRow]:
    lines = _CsvLines(stream, limits, encoding)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.next_record()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, RowError) as error:
            offset, number, _ = lines.record[0]
            # A record over several lines spoils the first only; where one line alone is bad, the record ends
            # with it.
            lines.keep_first()
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            yield BadRow(offset, f"line {number}: {_csv_reason(error)}")
            continue
        if cells:
            offset, number, _ = lines.record[0]
            yield offset, number, b"".join(line or b"" for _, _, line in lines.record), cells


def _csv_reason(error: Exception) -> str:
    text = str(error)
    return "a quote that is never closed" if text == "unexpected end of data" else text
