"""Rows out of files, one at a time, and what cannot be read told apart from what can: a bad row never takes
its neighbors with it.

Offsets count bytes of what is read (after decompression), and point at the first byte of a row. No reason
quotes what is in a row.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from treadle.core.errors import MissingExtra

_BOM = b"\xef\xbb\xbf"
_NOT_SPACE = re.compile(rb"[^ \t\r\n]")
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


class _BadRowError(ValueError):
    """Why a row is bad, in words that can be shown."""


def read_json_lines(stream: BinaryIO, limits: Limits, encoding: str = "utf-8") -> Iterator[Row | BadRow]:
    """One JSON value a line; empty lines are no rows. ``number`` is the line's."""
    for number, (offset, line) in enumerate(_lines(stream, limits.row_bytes), start=1):
        if line is None:
            yield BadRow(offset, f"line {number}: longer than {limits.row_bytes} bytes")
            continue
        raw = line.strip(b" \t\r\n")
        if raw:
            yield _json_row(offset, number, raw, limits, encoding, f"line {number}")


def read_json_array(stream: BinaryIO, limits: Limits, encoding: str = "utf-8") -> Iterator[Row | BadRow]:
    """The elements of one JSON array, or one JSON object as the only row. ``number`` is the element's
    place.
    """
    splitter = _Elements(stream, limits)
    for number, (offset, raw, problem) in enumerate(splitter.elements(), start=1):
        where = f"element {number}"
        if problem:
            yield BadRow(offset, f"{where}: {problem}")
        else:
            yield _json_row(offset, number, raw, limits, encoding, where)


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
            repeated = {name for name in names if names.count(name) > 1}
            if repeated:
                yield BadRow(offset, f"line {number}: {len(repeated)} column names occur more than once")
                return
        elif len(cells) != len(names):
            yield BadRow(offset, f"line {number}: {len(cells)} columns where the first row names {len(names)}")
        else:
            yield Row(offset, number, raw, dict(zip(names, cells, strict=True)))


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
            raise _BadRowError(f"longer than {limits.row_bytes} bytes")
        _check_value(plain, limits.depth)
    except UnicodeEncodeError:
        return BadRow(number - 1, f"row {number}: half of a surrogate pair, which is no text")
    except (ValueError, TypeError, RecursionError) as error:
        reason = str(error) if isinstance(error, _BadRowError) else "holds a value that JSON has no form for"
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


def _lines(stream: BinaryIO, longest: int) -> Iterator[tuple[int, bytes | None]]:
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
        elif start == 0 and line.startswith(_BOM):
            yield len(_BOM), line[len(_BOM) :]
        else:
            yield start, line


def _json_row(offset: int, number: int, raw: bytes, limits: Limits, encoding: str, where: str) -> Row | BadRow:
    try:
        return Row(offset, number, raw, _parsed(raw, limits, encoding))
    except _BadRowError as error:
        return BadRow(offset, f"{where}: {error}")


def _parsed(raw: bytes, limits: Limits, encoding: str) -> Any:
    text = _decoded(raw, encoding)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _BadRowError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise _BadRowError(f"nested deeper than {limits.depth}") from None
    except _BadRowError:
        raise
    except ValueError:
        raise _BadRowError("a number with too many digits") from None
    _check_value(value, limits.depth)
    return value


def _decoded(raw: bytes, encoding: str) -> str:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise _BadRowError(
            f"not {encoding} at byte {error.start + 1}; if it is another encoding, set `encoding`"
        ) from None


def _no_constant(name: str) -> Any:
    raise _BadRowError(f"not JSON: {name} is no number")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _check_value(value: Any, depth: int) -> None:
    """Refuse what cannot be stored: nesting too deep, half of a surrogate pair, a number that is infinite."""
    level = [value]
    for _ in range(depth + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, float) and not math.isfinite(item):
                raise _BadRowError("a number too large to be one")
            elif isinstance(item, dict):
                for key in item:
                    _check_text(key)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return
        level = below
    raise _BadRowError(f"nested deeper than {depth}")


def _check_text(text: str) -> None:
    if not text.isascii() and _SURROGATE.search(text):
        raise _BadRowError("half of a surrogate pair, which is no text")


class _Elements:
    """Finds where the elements of a JSON array start and end, holding one element at a time."""

    _BLOCK = 1 << 20
    _STRING = re.compile(rb'"|\\.', re.DOTALL)  # what matters inside a string: its end, and what is escaped
    _NESTED = re.compile(rb'["{}\[\]]')
    _TOP = re.compile(rb'["{}\[\],]')

    def __init__(self, stream: BinaryIO, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._buffer = b""
        self._at = 0  # where in the buffer reading goes on
        self._start = 0  # offset of the buffer's first byte

    def elements(self) -> Iterator[tuple[int, bytes, str]]:
        """Offset, bytes and problem (empty when there is none) of each."""
        self._fill()
        if self._buffer.startswith(_BOM):
            self._at = len(_BOM)
        if self._skip_space() != b"[":
            yield self._whole()
            return
        self._at += 1
        yield from self._items()

    def _whole(self) -> tuple[int, bytes, str]:
        """A file that is no array: one object is one row."""
        begin, offset = self._at, self._start + self._at
        first = self._buffer[begin : begin + 1]
        if first != b"{":
            return offset, b"", "not JSON: neither an array nor an object" if first else "an empty file"
        while len(self._buffer) - begin <= self._limits.row_bytes and self._fill():
            pass
        if len(self._buffer) - begin > self._limits.row_bytes:
            return offset, b"", f"longer than {self._limits.row_bytes} bytes"
        return offset, self._buffer[begin:].rstrip(), ""

    def _items(self) -> Iterator[tuple[int, bytes, str]]:
        first, end = True, b","
        while end == b",":
            self._skip_space()
            offset = self._start + self._at
            raw, end, problem = self._item()
            raw = raw.rstrip(b" \t\r\n")
            if problem or raw:
                yield offset, raw, problem
            elif end == b"," or not first:
                yield offset, b"", "nothing between commas"
            first = False
        if end and self._skip_space():
            yield self._start + self._at, b"", "something after the end of the array"

    def _item(self) -> tuple[bytes, bytes, str]:
        """Bytes of one element, the byte that ended it (empty at the end of the file), and the problem
        with it.
        """
        begin = at = self._at
        depth, inside, problem = 0, False, ""
        while True:
            pattern = self._STRING if inside else self._NESTED if depth else self._TOP
            found = pattern.search(self._buffer, at)
            if found is None:
                if len(self._buffer) - begin > self._limits.row_bytes:
                    problem = f"longer than {self._limits.row_bytes} bytes"
                at = max(at, len(self._buffer) - self._buffer.endswith(b"\\"))  # what it escapes is still to come
                at -= self._forget(at if problem else begin)
                begin = 0
                if not self._fill():
                    self._at = len(self._buffer)
                    return b"", b"", problem or "the array is not closed"
                continue
            at, mark = found.end(), found[0]
            if mark == b'"':
                inside = not inside
            elif inside:
                continue
            elif depth == 0 and mark in (b",", b"]"):
                self._at = at
                raw = self._buffer[begin : at - 1]
                if len(raw) > self._limits.row_bytes:
                    problem = f"longer than {self._limits.row_bytes} bytes"
                return b"" if problem else raw, mark, problem
            else:
                depth = max(0, depth + (1 if mark in (b"{", b"[") else -1))
                if depth > self._limits.depth:
                    problem = f"nested deeper than {self._limits.depth}"

    def _skip_space(self) -> bytes:
        """Go to the next byte that is not white space, and look at it; empty at the end of the file."""
        while True:
            found = _NOT_SPACE.search(self._buffer, self._at)
            if found:
                self._at = found.start()
                return found[0]
            self._at = len(self._buffer)
            if not self._fill():
                return b""

    def _forget(self, count: int) -> int:
        """Drop the buffer's first bytes; returns how many."""
        self._buffer = self._buffer[count:]
        self._start += count
        return count

    def _fill(self) -> bool:
        """Read on; what lies before the place of reading is dropped unless an element is being read."""
        more = self._stream.read(self._BLOCK)
        self._buffer += more
        return bool(more)


class _CsvLines:
    """Lines for ``csv.reader``, remembering those of the record being read so that they can be read again."""

    def __init__(self, stream: BinaryIO, limits: Limits, encoding: str) -> None:
        self._lines = _lines(stream, limits.row_bytes)
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
            raise _BadRowError(f"longer than {self._limits.row_bytes} bytes")
        self._size += len(entry[2])
        return _decoded(entry[2], self._encoding)

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
        except (csv.Error, _BadRowError) as error:
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
