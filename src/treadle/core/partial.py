"""An object that is being fetched: a file in `cache/pull/` that only grows, until its digest is right.

Where the store is encrypted, each piece is too: the number of its bytes, then the bytes.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from blake3 import blake3

from treadle.core.chunks import LARGEST, Chunk
from treadle.core.digest import PREFIX, blake3_bytes
from treadle.core.errors import Corrupt, UserError
from treadle.core.store import Store

_LENGTH = struct.Struct(">I")


class Partial:
    """One such file, held by one process."""

    def __init__(self, store: Store, digest: str) -> None:
        self._store, self._digest, self._cipher = store, digest, store.cipher
        name = digest.removeprefix(PREFIX) + (".sealed" if store.cipher is not None else "")
        self.path = store.root / "cache" / "pull" / name
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._hasher = blake3()
        self.size = 0

    def __enter__(self) -> Partial:
        while True:
            self._file: BinaryIO = self.path.open("a+b")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if self.path.stat().st_ino == os.fstat(self._file.fileno()).st_ino:
                    return self
            self._file.close()  # finished by whoever had it before

    def __exit__(self, *_: object) -> None:
        if self.size == 0:  # nothing to go on with
            self.path.unlink(missing_ok=True)
        self._file.close()

    def restart(self) -> None:
        """Begin with nothing."""
        self._file.truncate(0)

    def resume(self, chunks: list[Chunk]) -> int:
        """Keep the chunks at the start that are there and right; returns how many."""
        self._file.seek(0)
        count = end = 0
        for chunk in chunks:
            data = self._piece(chunk.size)
            if data is None or len(data) < chunk.size or blake3_bytes(data) != chunk.digest:
                break
            self._hasher.update(data)
            self.size += len(data)
            count += 1
            end = self._file.tell()
        self._file.truncate(end)
        return count

    def _piece(self, size: int) -> bytes | None:
        """The next piece; None when there is none, or it cannot be decrypted."""
        if self._cipher is None:
            return self._file.read(size)
        head = self._file.read(_LENGTH.size)
        length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
        if not 0 < length < 2 * LARGEST:
            return None
        with suppress(Corrupt, UserError):  # begun under another key
            return self._cipher.decrypt(self._file.read(length))
        return None

    def append(self, data: bytes) -> None:
        """More bytes at the end."""
        self._hasher.update(data)
        if self._cipher is None:
            self._file.write(data)
        else:
            sealed = self._cipher.encrypt(data)
            self._file.write(_LENGTH.pack(len(sealed)) + sealed)
        self._file.flush()
        self.size += len(data)

    def digest(self) -> str:
        """Of what is there."""
        return PREFIX + self._hasher.hexdigest()

    def finish(self) -> None:
        """Give it its name in the store."""
        if self._cipher is None:
            self._store.adopt([(self.path, self._digest)])
        else:
            self._store.adopt_pieces(self._pieces(), self._digest)
            self.path.unlink()

    def _pieces(self) -> Iterator[bytes]:
        self._file.seek(0)
        while (piece := self._piece(0)) is not None:
            yield piece

    def discard(self) -> None:
        """Throw it away."""
        self.path.unlink(missing_ok=True)
