"""The parts of an EPUB or Office file: a ZIP in memory, read with limits."""

from __future__ import annotations

import io
import zipfile
import zlib

from treadle.text.readers.piece import UnreadableError

_MOST_PARTS = 20_000
_LARGEST_PART = 64 << 20  # bytes
_MOST_EXPANSION = 300
_ANYWAY = 8 << 20  # bytes of a part that are read whatever it was packed to


class Parts:
    """Named parts of a packed document, unpacked one at a time."""

    def __init__(self, data: bytes, what: str) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, OverflowError, EOFError):
            raise UnreadableError(f"not {what} that can be opened: its ZIP directory is broken") from None
        if len(self._zip.infolist()) > _MOST_PARTS:
            raise UnreadableError(f"more than {_MOST_PARTS} parts")
        self.names = frozenset(self._zip.namelist())

    def read(self, name: str) -> bytes:
        """One part; ``UnreadableError`` when it is missing, broken, encrypted, or a bomb."""
        try:
            info = self._zip.getinfo(name)
        except KeyError:
            raise UnreadableError(f"its part {_shown(name)} is missing") from None
        if info.flag_bits & 1:
            raise UnreadableError("encrypted")
        allowed = min(_LARGEST_PART, max(_ANYWAY, _MOST_EXPANSION * info.compress_size))
        try:
            with self._zip.open(info) as file:
                data = file.read(allowed + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError, RuntimeError):
            raise UnreadableError(f"its part {_shown(name)} cannot be unpacked") from None
        if len(data) > allowed:
            raise UnreadableError(f"its part {_shown(name)} unpacks to more than {allowed} bytes")
        return data


def _shown(name: str) -> str:
    return repr(name[-80:])
