"""Digests of files that were hashed before, so that asking whether a folder changed costs a look at each file and no
reading.

A file counts as the same while its size, its times and its number on the disk are. Both times: the one of contents can
be set by anybody, that of the last change of anything is the kernel's. A file that was changed just before it was
hashed is hashed again, since two changes within one tick of the kernel's clock have the same time.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from treadle.core.digest import blake3_file, canonical_json

_SETTLED = 2_000_000_000  # nanoseconds since its last change after which a file's times tell
Look = tuple[int, ...]  # size, time of contents, time of change, number, disk


class KnownFiles:
    """Digests by ``keyed`` path, kept in the file ``path``: a cache, which may be missing or damaged."""

    def __init__(self, path: Path, keyed: Callable[[str], str]) -> None:
        self._path, self._keyed = path, keyed
        self._asked: dict[str, tuple[Look, str]] = {}

    def digest(self, path: Path) -> str:
        """The digest of a file's bytes; ``OSError`` when there is none."""
        name, look = self._keyed(str(path)), _look(path)
        found = self._asked.get(name) or self._known.get(name)
        if found is None or found[0] != look:
            now = time.time_ns()
            found = look, blake3_file(path)
            if now - max(look[1], look[2]) < _SETTLED or _look(path) != look:
                self._asked.pop(name, None)
                return found[1]
        self._asked[name] = found
        return found[1]

    def keep(self, folder: Path) -> None:
        """Keep what was asked for, and nothing else. ``folder`` is on the same file system, and empty."""
        if self._asked == self._known:
            return
        made = folder / self._path.name
        made.write_bytes(canonical_json({name: [list(look), digest] for name, (look, digest) in self._asked.items()}))
        self._path.parent.mkdir(exist_ok=True)
        made.replace(self._path)

    @functools.cached_property
    def _known(self) -> dict[str, tuple[Look, str]]:
        try:
            found = json.loads(self._path.read_bytes())
            return {str(name): (tuple(look), str(digest)) for name, (look, digest) in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


_CURRENT: ContextVar[KnownFiles | None] = ContextVar("known_files", default=None)


@contextmanager
def remembering(known: KnownFiles) -> Iterator[None]:
    """Within the block ``file_digest`` looks there first."""
    before = _CURRENT.set(known)
    try:
        yield
    finally:
        _CURRENT.reset(before)


def file_digest(path: Path) -> str:
    """The digest of a file's bytes; read only where it is not known."""
    known = _CURRENT.get()
    return blake3_file(path) if known is None else known.digest(path)


def _look(path: Path) -> Look:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev
