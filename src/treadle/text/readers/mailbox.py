"""A mailbox file (RFC 4155): its messages one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from treadle.text.rows import BadRow

_START = re.compile(rb"From .{1,300}\d{4}")
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)


def messages(stream: BinaryIO, largest: int) -> Iterator[tuple[int, int, bytes] | BadRow]:
    """Offset, number from 1 and bytes of each message. One that is longer than ``largest`` is never held whole."""
    offset = start = number = size = 0
    lines: list[bytes] = []
    blank = True
    while line := stream.readline(1 << 20):
        if blank and line.startswith(b"From ") and _START.match(line):
            if number:
                yield _message(start, number, lines, size, largest)
            start, lines, size, number = offset, [], 0, number + 1
        else:
            if not number and line.strip():
                number = 1  # something before the first separator is a message as well
            size += len(line)
            if size <= largest:
                lines.append(line)
        offset += len(line)
        blank = line in (b"\n", b"\r\n")
    if number:
        yield _message(start, number, lines, size, largest)


def _message(start: int, number: int, lines: list[bytes], size: int, largest: int) -> tuple[int, int, bytes] | BadRow:
    if size > largest:
        return BadRow(start, f"message {number}: longer than {largest} bytes")
    return start, number, _QUOTED.sub(rb"\1", b"".join(lines))
