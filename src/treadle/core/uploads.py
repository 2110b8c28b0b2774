"""Files that somebody sends one by one, until they are an artifact.

Each lies in the store as an object from the moment it is acknowledged, and the state says whose it is. An artifact is
made of them when their owner is done, or has sent nothing for a while. Until then no row names them, so whoever
deletes what no row names asks `pending` first, and only then which rows there are: what settles in between is in both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from treadle.core.artifacts import Entry, check_path
from treadle.core.digest import PREFIX, blake3_bytes
from treadle.core.errors import Corrupt, UserError
from treadle.core.state import State
from treadle.core.store import Store

_PREFIX = "upload:"


def pending(state: State) -> set[str]:
    """Objects that were acknowledged and that no row names yet."""
    return {each["digest"] for each in state.values(_PREFIX).values()}


@dataclass(frozen=True, slots=True)
class Waiting:
    """What one owner has sent and is in no artifact yet: names in the state, and files."""

    names: tuple[str, ...]
    entries: tuple[Entry, ...]


class Uploads:
    """Takes files in and hands them out together. One process at a time does so for an owner."""

    def __init__(self, store: Store, state: State) -> None:
        self._store = store
        self._state = state

    def add(self, owner: str, path: str, file: Path, digest: str, known: Iterable[Entry]) -> None:
        """Take a file, whose digest the caller has computed, as ``path`` of an owner; once this returns it survives.

        ``known`` are the files the owner has already. ``UserError`` for a path that cannot be among them.
        """
        _refuse(path, [entry.path for entry in known])
        size = file.stat().st_size
        self._store.adopt([(file, digest)])
        name = f"{_PREFIX}{owner}:{blake3_bytes(path.encode()).removeprefix(PREFIX)[:32]}"
        self._state.set(name, {"path": path, "digest": digest, "size": size})

    def owners(self) -> set[str]:
        """Everybody who has sent something that is in no artifact yet."""
        return {name.removeprefix(_PREFIX).rpartition(":")[0] for name in self._state.names(_PREFIX)}

    def waiting(self, owner: str) -> Waiting:
        """What an owner has sent since `settle`."""
        found = self._state.values(f"{_PREFIX}{owner}:")
        entries = (Entry(each["path"], each["size"], each["digest"]) for each in found.values())
        return Waiting(tuple(found), tuple(entries))

    def settle(self, waiting: Waiting) -> None:
        """These files are in an artifact that a row names."""
        for name in waiting.names:
            self._state.swap(name, None)


def together(before: Iterable[Entry], later: Iterable[Entry]) -> list[Entry]:
    """Files by path, the later ones in the place of those before."""
    return list(({entry.path: entry for entry in before} | {entry.path: entry for entry in later}).values())


def _refuse(path: str, others: list[str]) -> None:
    try:
        check_path(path)
        path.encode()
    except (Corrupt, UnicodeEncodeError):
        raise UserError(f"{path[:200]!r} is no path of a file; expected names joined by /, without . and ..") from None
    folders = {str(parent) for parent in PurePosixPath(path).parents}
    if folders & set(others) or any(other.startswith(path + "/") for other in others):
        raise UserError(f"{path[:200]!r}: a file and a folder of an artifact cannot have one name")
