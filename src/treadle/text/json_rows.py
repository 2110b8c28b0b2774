"""Rows of JSON: a value a line, or the elements of one array, each parsed on its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from treadle.text.rows import BOM, BadRow, Limits, Row, RowError, check_value, decoded, lines

_NOT_SPACE = re.compile(rb"[^ \t\r\n]")


def read_json_lines(stream: BinaryIO, limits: Limits, encoding: str = "utf-8") -> Iterator[Row | BadRow]:
    """One JSON value a line; empty lines are no rows. ``number`` is the line's."""
    for number, (offset, line) in enumerate(lines(stream, limits.row_bytes), start=1):
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


def _json_row(offset: int, number: int, raw: bytes, limits: Limits, encoding: str, where: str) -> Row | BadRow:
    try:
        return Row(offset, number, raw, _parsed(raw, limits, encoding))
    except RowError as error:
        return BadRow(offset, f"{where}: {error}")


def _parsed(raw: bytes, limits: Limits, encoding: str) -> Any:
    text = decoded(raw, encoding)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise RowError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise RowError(f"nested deeper than {limits.depth}") from None
    except RowError:
        raise
    except ValueError:
        raise RowError("a number with too many digits") from None
    check_value(value, limits.depth)
    return value


def _no_constant(name: str) -> Any:
    raise RowError(f"not JSON: {name} is no number")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


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
        if self._buffer.startswith(BOM):
            self._at = len(BOM)
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
        # Of a stream that breaks, all that comes before the break.
        more = self._stream.read1(self._BLOCK)  # type: ignore[attr-defined]
        self._buffer += more
        return bool(more)
