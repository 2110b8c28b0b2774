"""A stream that knows its first bytes before they are read, and how far it was read."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from treadle.text.readers.sniff import HEAD

_BUFFER = 1 << 18
_IN_MEMORY = 1 << 26  # bytes; what is larger and has to be sought in goes to a temporary file


class Stream(io.RawIOBase):
    """A file, or what comes out of one. ``position`` counts the bytes given so far.

    ``head`` is what it begins with. That the source breaks in there is told when the bytes before were read.
    """

    def __init__(self, source: BinaryIO) -> None:
        self.position = 0
        self._seekable = source.seekable()
        pieces = bytearray()
        error: Exception | None = None
        try:
            while len(pieces) < HEAD and (piece := source.read(HEAD - len(pieces))):
                pieces += piece
        except Exception as broken:  # whatever it is, it is raised where it belongs
            error = broken
        self.head = bytes(pieces)
        if self._seekable and error is None:
            source.seek(0)
            self._source: BinaryIO = source
        else:
            self._seekable = False
            self._source = cast(BinaryIO, io.BufferedReader(_Resumed(self.head, source, error), _BUFFER))

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Whether the source is a file, and broke nowhere in its first bytes."""
        return self._seekable

    def seek(self, offset: int, whence: int = 0) -> int:
        """As files do."""
        self.position = self._source.seek(offset, whence)
        return self.position

    def tell(self) -> int:
        """How far it was read."""
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        """As files do; what unpacking meets is raised here."""
        data = self._source.read(-1 if size is None else size)
        self.position += len(data)
        return data

    def read1(self, size: int = -1) -> bytes:
        """What comes of one look at the source: where that breaks, ``read`` would lose what came just before."""
        read = getattr(self._source, "read1", self._source.read)  # remote files have none, and do not break so
        data: bytes = read(size)
        self.position += len(data)
        return data

    def readline(self, size: int | None = -1) -> bytes:
        """As files do."""
        data = self._source.readline(-1 if size is None else size)
        self.position += len(data)
        return data

    @contextmanager
    def sought(self) -> Iterator[Stream]:
        """The whole of it as a stream that can be sought in."""
        if self._seekable:
            yield self
            return
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as spooled:
            shutil.copyfileobj(cast(BinaryIO, self), spooled, _BUFFER)
            spooled.seek(0)
            yield Stream(cast(BinaryIO, spooled))


class _Resumed(io.RawIOBase):
    """What was read already, then the rest, or the error that reading it met."""

    def __init__(self, head: bytes, source: BinaryIO, error: Exception | None) -> None:
        self._head = head
        self._source = source
        self._error = error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._head:
            data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        elif self._error is not None:
            raise self._error
        else:
            data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
