"""The packs of a store: which there are, what lies in them, and writing them anew without some of it.

A pack gets its name by one rename. To take an object out, the pack is written again without it, named, and the old one
deleted: killed in between, both are there, and the same call ends it. A damaged one is mended the same way, and kept
beside where it holds something that lies nowhere else.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from treadle.core.digest import PREFIX
from treadle.core.errors import Corrupt
from treadle.core.intake import sync_path
from treadle.core.loose import Stored
from treadle.core.pack import ASIDE, FULL, SUFFIX, Pack, PackWriter
from treadle.core.workplace import Workplace

_SETTLED = 2_000_000_000  # ns; a folder changed later than this before it was listed may change again unseen
_SMALL = FULL // 4  # bytes; packs below this are put together
_SMALL_ONES = 8  # when there are so many

Rewrite = Callable[[str, bytes], bytes | None]


class Packs:
    """What lies under ``objects/packs/``; others may add and remove packs at any time."""

    def __init__(self, folder: Path, workplace: Workplace) -> None:
        self._folder, self._workplace = folder, workplace
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int, int], Pack] = {}
        self._packs: list[Pack] = []
        self._stamp: tuple[int, int] | None = None
        self._strays: dict[str, str] = {}

    # -- what there is

    def current(self) -> list[Pack]:
        """The packs, the largest first."""
        try:
            status = os.stat(self._folder)  # noqa: PTH116 (hot)
        except FileNotFoundError:
            return []
        stamp = (status.st_ino, status.st_mtime_ns)
        if stamp == self._stamp:
            return self._packs
        with self._lock:
            now, known = time.time_ns(), self._list()
            self._known = known
            self._packs = sorted(known.values(), key=len, reverse=True)
            self._stamp = stamp if now - status.st_mtime_ns > _SETTLED else None
            return self._packs

    def _list(self) -> dict[tuple[str, int, int], Pack]:
        known, self._strays = {}, {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    key = (entry.name, status.st_ino, status.st_size)
                    if entry.name.endswith(ASIDE):
                        self._strays[entry.name] = (
                            "holds what is damaged and lies nowhere else; treadle pull REMOTE clears it up, "
                            "or move the file out of the store"
                        )
                        continue
                    if not entry.name.endswith(SUFFIX) or not entry.is_file(follow_symlinks=False):
                        self._strays[entry.name] = "is no pack of objects; take it away"
                        continue
                    try:
                        known[key] = self._known.get(key) or Pack(Path(entry.path))
                    except Corrupt as error:
                        self._strays[entry.name] = str(error)
        return known

    def find(self, digest: str) -> Iterator[Stored]:
        """Where an object lies in packs."""
        raw = bytes.fromhex(digest.removeprefix(PREFIX))
        for pack in self.current():
            for start, length in pack.places(raw):
                yield Stored(str(pack.path), length, pack.encrypted, start)

    def all(self) -> Iterator[tuple[str, Stored]]:
        """Every object in every pack."""
        for pack in self.current():
            path = str(pack.path)
            with suppress(FileNotFoundError):
                modified = pack.path.stat().st_mtime
                for raw, start, length in pack:
                    yield PREFIX + raw.hex(), Stored(path, length, pack.encrypted, start, modified)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Packs that are not as they were written, and what lies among them, with what is wrong."""
        for pack in self.current():
            if pack.damage or not pack.is_tight():
                yield pack.path.name, pack.damage or "has something between its objects; treadle pull REMOTE mends it"
        yield from self._strays.items()

    def require_complete(self) -> None:
        """``Corrupt`` where there is a pack of which nobody can say what lies in it: what is to go may be there."""
        aside = "move the file out of the store"
        unsure = {
            pack.path.name: f"treadle pull REMOTE mends it, or {aside}" for pack in self.current() if not pack.complete
        }
        unsure |= {name: aside for name in self._strays if name.endswith((SUFFIX, ASIDE))}
        for name, way in sorted(unsure.items()):
            raise Corrupt(
                f"{self._folder / name} is damaged, and what is to be erased may be in it; no object was deleted:"
                f" {way}, then run this again"
            )

    def read(self, stored: Stored) -> bytes:
        """The bytes of an object as they lie there."""
        descriptor = os.open(stored.path, os.O_RDONLY)
        try:
            return os.pread(descriptor, stored.length, stored.start or 0)
        finally:
            os.close(descriptor)

    # -- changing it; whoever deletes holds the store's lock alone

    def writer(self, *, encrypted: bool) -> PackWriter:
        """A pack to fill."""
        return PackWriter(self._workplace.new_file("pack-"), encrypted=encrypted)

    def add(self, writer: PackWriter, modified: float | None = None) -> None:
        """Give a pack its name; ``modified`` is how old what is in it counts."""
        path = writer.finish()
        if modified is not None:
            os.utime(path, (modified, modified))
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            sync_path(self._folder.parent)
        path.replace(self._folder / writer.name)
        sync_path(self._folder)

    def delete(self, digests: Iterable[str]) -> int:
        """Take objects out of the packs that they are in; returns the bytes that they took. A pack of which nobody can
        say what else is in it stays."""
        doomed = {bytes.fromhex(digest.removeprefix(PREFIX)) for digest in digests}
        freed = 0
        for pack in self.current() if doomed else ():
            if not pack.complete:
                continue
            gone = {raw: place[1] for raw in doomed if (place := pack.find(raw)) is not None}
            if gone:
                self.rewrite([pack], lambda digest, data, gone=gone: None if _raw(digest) in gone else data)  # type: ignore[misc]
                freed += sum(gone.values())
        return freed

    def rewrite(self, packs: list[Pack], change: Rewrite, *, encrypted: bool | None = None) -> None:
        """Write packs anew as one, or as more where one would be too large, each object as ``change`` says: other
        bytes, or None to leave it out. What is in two of them is written once."""
        made = self._written(packs, change, encrypted=encrypted)
        for pack in packs:
            if pack.path.name not in made:
                pack.path.unlink()
        sync_path(self._folder)

    def aside(self) -> list[Pack]:
        """Packs that were mended and kept."""
        found = []
        for path in sorted(self._folder.glob("*" + ASIDE)):
            with suppress(Corrupt, FileNotFoundError):
                found.append(Pack(path))
        return found

    def mend(self, pack: Pack, sound: Rewrite, is_safe: Callable[[str], bool]) -> None:
        """Write what is ``sound`` in a damaged pack to another, unless it ``is_safe`` there already. The damaged one
        goes when all that may be in it is safe then; else it is kept beside."""
        written = set()

        def change(digest: str, data: bytes) -> bytes | None:
            kept = None if is_safe(digest) else sound(digest, data)
            if kept is not None:
                written.add(_raw(digest))
            return kept

        made = self._written([pack], change)
        settled = {place for place in pack if place[0] in written or is_safe(PREFIX + place[0].hex())}
        if pack.path.name in made:
            pass  # the same objects in the same places, put over it
        elif pack.accounts_for(settled):
            pack.path.unlink()
        elif not pack.path.name.endswith(ASIDE):
            pack.path.rename(self._folder / (pack.path.name.removesuffix(SUFFIX) + ASIDE))
        sync_path(self._folder)

    def _written(self, packs: list[Pack], change: Rewrite, *, encrypted: bool | None = None) -> set[str]:
        """The names of the packs that were written."""
        modified = max(pack.path.stat().st_mtime for pack in packs)
        kind = packs[0].encrypted if encrypted is None else encrypted
        writer = self.writer(encrypted=kind)
        made: set[str] = set()
        try:
            for pack in packs:
                for raw, data, _ in pack.records():
                    changed = None if raw in writer else change(PREFIX + raw.hex(), data)
                    if changed is None:
                        continue
                    if writer.size + len(changed) > FULL and len(writer):
                        self.add(writer, modified)
                        made.add(writer.name)
                        writer = self.writer(encrypted=kind)
                    writer.add(raw, changed)
            if len(writer):
                self.add(writer, modified)
                made.add(writer.name)
        finally:
            writer.discard()
        return made

    def tidy(self, sound: Callable[[Pack], Rewrite]) -> None:
        """Put many small packs together: each one more is asked where an object is. ``Corrupt`` for a damaged one."""
        for encrypted in (False, True):
            small = [pack for pack in self.current() if pack.bytes < _SMALL and pack.encrypted is encrypted]
            if len(small) >= _SMALL_ONES and not any(pack.damage for pack in small):
                self.rewrite(small, sound(small[0]))


def _raw(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix(PREFIX))
