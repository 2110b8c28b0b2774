"""What is known of two sides before anything travels: what a remote has, and which chunks are here."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from treadle.core.chunks import Chunk, list_bytes, read_list
from treadle.core.digest import PREFIX, blake3_bytes
from treadle.core.errors import Corrupt
from treadle.core.remote import Remote, listed
from treadle.core.store import Store


class Chunks(Protocol):
    """Chunks that a remote has and that need not be sent."""

    def __contains__(self, digest: object, /) -> bool: ...

    def add(self, digest: str, /) -> None:
        """It has one more."""
        ...


@dataclass
class Known:
    """What a remote is believed to have: objects as they are, lists of chunks, chunks (None: listed when needed).

    What is not believed to be there is sent, and fetched if it is there after all.
    """

    objects: set[str] = field(default_factory=set)
    lists: set[str] = field(default_factory=set)
    chunks: Chunks | None = None

    @classmethod
    def all_of(cls, remote: Remote) -> Known:
        """Everything that the remote lists."""
        return cls(listed(remote, "objects"), listed(remote, "lists"))


class CachedLists:
    """The chunks of large objects in the store, as far as they travelled: what need not be fetched again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder: Path = store.root / "cache" / "chunks"
        self._where: dict[str, tuple[str, int]] | None = None
        self._lock = threading.Lock()

    def keep(self, digest: str, chunks: list[Chunk]) -> None:
        """Remember what an object is made of."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / digest.removeprefix(PREFIX)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(list_bytes(chunks))
        temporary.replace(path)
        if self._where is not None:
            _learn(self._where, digest, chunks)

    def knows(self, digest: str) -> bool:
        """Whether a chunk is in an object that has travelled."""
        return digest in self._index()

    def find(self, chunk: Chunk) -> bytes | None:
        """The bytes of a chunk out of an object that is here; None where there is none, or it is damaged."""
        where = self._index().get(chunk.digest)
        if where is None:
            return None
        try:
            with self._store.open_unverified(where[0]) as file:
                file.seek(where[1])
                data = file.read(chunk.size)
        except Corrupt:
            return None
        return data if blake3_bytes(data) == chunk.digest else None

    def _index(self) -> dict[str, tuple[str, int]]:
        with self._lock:
            if self._where is None:
                self._where = self._load()
            return self._where

    def _load(self) -> dict[str, tuple[str, int]]:
        """For each chunk an object that has it, and where in it."""
        found: dict[str, tuple[str, int]] = {}
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            digest = PREFIX + path.name
            if not self._store.has_object(digest):
                path.unlink(missing_ok=True)
                continue
            with suppress(Corrupt, OSError):
                _learn(found, digest, read_list(path.read_bytes()))
        return found


def _learn(where: dict[str, tuple[str, int]], digest: str, chunks: list[Chunk]) -> None:
    at = 0
    for chunk in chunks:
        where.setdefault(chunk.digest, (digest, at))
        at += chunk.size
