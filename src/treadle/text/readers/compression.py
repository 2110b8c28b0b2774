"""Packed streams (gzip, bzip2, xz, lzma, Zstandard) unpacked as they are read, within a budget.

What comes before a break is given; then the error says what is wrong. Several streams one after the other, as
``cat a.gz b.gz`` makes them, are one.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from treadle.core.errors import MissingExtra

_BLOCK = 1 << 17  # packed bytes read at a time
_FREE = 1 << 26  # bytes that may come out of a file before the ratio counts
_MOST_MEMORY = 1 << 28  # bytes that an xz or zstd stream may ask for
NAMES = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "lzma": "lzma", "zst": "Zstandard"}


class BrokenStreamError(ValueError):
    """Why the rest of a packed stream cannot be read."""


class TooMuchError(Exception):
    """More came out of a file than anybody meant to put in. No parser takes it for an error of its own."""


@dataclass(frozen=True, slots=True)
class Archives:
    """What may come out of one file that is packed: ``ratio`` times its size, ``largest`` bytes and ``members`` files,
    ``depth`` archives within each other.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (what pydantic looks for)

    ratio: int = 300
    largest: int = 100_000_000_000
    members: int = 1_000_000
    depth: int = 4

    def __post_init__(self) -> None:
        for name, least in (("ratio", 1), ("largest", 1), ("members", 1), ("depth", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least {least}")


class Budget:
    """What one file may still give. Everything unpacked from it, at whatever depth, is spent here."""

    def __init__(self, packed: int, limits: Archives) -> None:
        self.limits = limits
        self._most = min(limits.largest, max(_FREE, limits.ratio * packed))
        self._members = 0
        self._bytes = 0

    def spend(self, count: int) -> None:
        """``TooMuchError`` once more was unpacked than the limits allow."""
        self._bytes += count
        if self._bytes > self._most:
            limits = self.limits
            what = f"{limits.largest} bytes" if self._most == limits.largest else f"{limits.ratio} times its size"
            raise TooMuchError(f"unpacks to more than {what}; the rest was not read")

    def member(self) -> None:
        """``TooMuchError`` for one member too many."""
        self._members += 1
        if self._members > self.limits.members:
            raise TooMuchError(f"holds more than {self.limits.members} files; the rest was not read")


class _Decompressor(Protocol):
    """As ``bz2.BZ2Decompressor`` has it."""

    eof: bool
    unused_data: bytes
    needs_input: bool

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Unpacked(io.RawIOBase):
    """What is in a packed stream. Wrap it in ``io.BufferedReader`` to read lines."""

    def __init__(self, packed: BinaryIO, packing: str, budget: Budget) -> None:
        self._packed = packed
        self._packing = packing
        self._budget = budget
        self._make = _MAKERS[packing]
        self._decompressor: _Decompressor | None = None
        self._left = b""  # packed bytes that were read and not yet given to the decompressor
        self._any = False

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """``BrokenStreamError``, ``TooMuchError``."""
        while True:
            if self._decompressor is None and not self._next_stream():
                return 0
            data = self._some(len(buffer))
            if data:
                self._budget.spend(len(data))
                buffer[: len(data)] = data
                return len(data)

    def _some(self, count: int) -> bytes:
        decompressor = self._decompressor
        assert decompressor is not None
        raw = b""
        if decompressor.needs_input:
            raw, self._left = self._left or self._packed.read(_BLOCK), b""
            if not raw:
                raise BrokenStreamError(f"the {NAMES[self._packing]} stream ends too early")
        try:
            data = decompressor.decompress(raw, count)
        except MemoryError:
            raise BrokenStreamError(f"needs more than {_MOST_MEMORY >> 20} MiB of memory to unpack") from None
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            raise BrokenStreamError(self._reason(error)) from None
        if decompressor.eof:
            self._left, self._decompressor, self._any = decompressor.unused_data, None, True
        return data

    def _next_stream(self) -> bool:
        """Whether another stream begins here. Zero bytes that fill up a block are no stream."""
        while True:
            if self._any:
                self._left = self._left.lstrip(b"\0")
            if len(self._left) < 6:
                more = self._packed.read(_BLOCK)
                self._left += more
                if more and not self._left.strip(b"\0"):
                    continue
                if self._any:
                    self._left = self._left.lstrip(b"\0")
            break
        if not self._left:
            if not self._any:
                raise BrokenStreamError(f"not a sound {NAMES[self._packing]} stream")
            return False
        self._decompressor = self._make()
        return True

    def _reason(self, error: Exception) -> str:
        if "memory" in str(error).lower():
            return f"needs more than {_MOST_MEMORY >> 20} MiB of memory to unpack"
        if self._any:
            return f"something that is no {NAMES[self._packing]} stream follows, or its next part is broken"
        return f"not a sound {NAMES[self._packing]} stream"


class _Gzip:
    """zlib as the other decompressors are."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self._tail = b""
        self._full = False

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._tail and not self._full

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = self._zlib.decompress(self._tail + data, max_length)
        self._tail = self._zlib.unconsumed_tail
        self._full = len(found) == max_length and not self._zlib.eof  # zlib may hold more of what it was given
        return found


class _Zstandard:
    """python-zstandard as the other decompressors are: frames are unpacked block by block into a bounded buffer."""

    def __init__(self) -> None:
        try:
            import zstandard
        except ImportError:
            raise MissingExtra("zstandard", extra="documents") from None
        self._error = zstandard.ZstdError
        self._frame = zstandard.ZstdDecompressor(max_window_size=_MOST_MEMORY).decompressobj()
        self._raw = b""
        self._ready = bytearray()
        self._ended = False

    @property
    def eof(self) -> bool:
        return self._ended and not self._ready

    @property
    def unused_data(self) -> bytes:
        return bytes(self._frame.unused_data) + self._raw

    @property
    def needs_input(self) -> bool:
        return not self._raw and not self._ready and not self._ended

    def decompress(self, data: bytes, max_length: int) -> bytes:
        self._raw += data
        try:
            # A block of at most 128 KiB can lie in a handful of bytes, so few are given at a time.
            while self._raw and not self._ended and len(self._ready) < max_length:
                piece, self._raw = self._raw[:1024], self._raw[1024:]
                self._ready += self._frame.decompress(piece)
                self._ended = bool(self._frame.eof)
        except self._error as error:
            raise OSError(str(error)) from None
        found = bytes(self._ready[:max_length])
        del self._ready[:max_length]
        return found


_MAKERS: dict[str, Callable[[], Any]] = {
    "gz": _Gzip,
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MOST_MEMORY),
    "zst": _Zstandard,
}
