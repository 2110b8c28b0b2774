"""A bucket that is a project's store: opened when it is first needed, and whose it is.

store                          whose: {"format":1,"public_key":"..."}
objects/, lists/, chunks/      as at a remote
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

from treadle.core.digest import canonical_json
from treadle.core.errors import UserError
from treadle.core.holdings import Holdings
from treadle.core.known import CachedLists
from treadle.core.remote import STORE, Item, Remote, digest_in, is_there, open_remote, place

FORMAT = 1


class Bucket:
    """``owner`` is the public key of the project: a bucket of another one is refused, for each would delete what the
    other needs."""

    def __init__(self, url: str, folder: Path, owner: str) -> None:
        self.url, self.owner = url, owner
        self._folder = folder
        self._opening = threading.Lock()
        self._opened: tuple[Remote, Holdings] | None = None

    @property
    def remote(self) -> Remote:
        """What is there as it is, also where it is encrypted. ``Unreachable`` or another ``UserError`` when it cannot
        be had."""
        return self._open()[0]

    @property
    def holdings(self) -> Holdings:
        """What it is known to have."""
        return self._open()[1]

    def _open(self) -> tuple[Remote, Holdings]:
        with self._opening:
            if self._opened is None:
                remote = open_remote(self.url, self._folder)
                _introduce(remote, self.owner)
                self._opened = remote, Holdings(remote)
            return self._opened

    def items(self, kind: str) -> dict[str, Item]:
        """What there is of a kind, by digest."""
        return {digest_in(item.name): item for item in self.remote.items(f"{kind}/")}

    def forget(self) -> None:
        """Believe nothing any more that was learned before."""
        with self._opening:
            if self._opened is not None:
                self._opened[1].forget()


class SentChunks:
    """Chunks that the bucket has, asked for where an object that has travelled has them."""

    def __init__(self, remote: Remote, cached: CachedLists) -> None:
        self._remote, self._cached, self._there = remote, cached, set[str]()

    def __contains__(self, digest: object) -> bool:
        if digest in self._there:
            return True
        if not isinstance(digest, str) or not self._cached.knows(digest):
            return False
        return is_there(self._remote, place("chunks", digest))

    def add(self, digest: str) -> None:
        """It has one more."""
        self._there.add(digest)


def _introduce(remote: Remote, owner: str) -> None:
    """Say whose the bucket is where nobody has; ``UserError`` when it is another project's, or a remote."""
    mine = canonical_json({"format": FORMAT, "public_key": owner})
    found = _find(remote, STORE)
    if found is None:
        if _find(remote, "remote") is not None:
            raise UserError(
                f"{remote.url} is a remote of treadle push; name another place for the store, such as "
                f"{remote.url}-store"
            )
        remote.write(STORE, mine)
    elif found != mine:
        try:
            number = json.loads(found)["format"]
        except (ValueError, KeyError, TypeError, RecursionError):
            number = None
        if number != FORMAT:
            raise UserError(f"{remote.url} is a store of format {number}; this Treadle reads format {FORMAT}")
        raise UserError(
            f"{remote.url} is the store of a project with other keys; name another place, or copy that project's keys"
        )


def _find(remote: Remote, name: str) -> bytes | None:
    try:
        return remote.read(name, 0, 1000)
    except FileNotFoundError:
        return None
