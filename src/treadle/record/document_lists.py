"""Lists of documents as they lie in the store (``documents.ids``), each checked before it is believed.

Most lists of a project are nearly the same, so each is compared with an earlier one that is like it, and only what it
gained and lost is kept of it. Ids are digests, so the smallest ids of two lists are a fair sample of both (Broder
1997, "On the resemblance and containment of documents"), and tell how alike they are.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import OrderedDict, deque
from dataclasses import dataclass

from treadle.core.artifacts import DOCUMENT_IDS
from treadle.core.digest import blake3_bytes
from treadle.core.document_ids import holds
from treadle.core.errors import Corrupt
from treadle.core.store import Store

ID = 32  # bytes
RECENT = 64  # lists that a new one is compared with
_SAMPLE = 64  # ids of each
_ALIKE = 0.4  # share of the ids of both that both have; below that no list is read for it
_LARGE = 1 << 20  # bytes; a larger list is checked once in this process, and only looked into after that
_KEPT = 64 << 20  # bytes of lists that others were compared with
_PART = 200_000  # ids that are compared at a time
_FEW = 8  # documents; a list of fewer stands for itself


@dataclass(frozen=True, slots=True)
class Change:
    """What a list is, as against an earlier one, or (``base`` 0) against none."""

    base: int
    gained: bytes  # ids, sorted, one after the other
    lost: bytes


class ListReader:
    """Reads lists by the name of the object. ``Corrupt`` when one is missing or damaged."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._checked: dict[str, tuple[int, ...]] = {}

    def of_artifact(self, digest: str) -> str:
        """The list of an artifact; empty when it was made from no documents."""
        return next((entry.digest for entry in self._store.entries(digest) if entry.path == DOCUMENT_IDS), "")

    def holds(self, name: str, document: str) -> bool:
        """Whether a document is in a list."""
        with self._store.open_unverified(name) as file:
            try:
                descriptor = file.fileno()
            except OSError:  # it lies in a pack or is encrypted, and is no file of its own
                return holds(self._store.read(name), document)
            status = os.fstat(descriptor)
            if status.st_size <= _LARGE:
                data = file.read()
                if blake3_bytes(data) != name:
                    raise Corrupt(f"object {name} is not what was stored; run treadle verify")
                return holds(data, document)
            seen = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if self._checked.get(name) != seen:
                self._store.check(name)
                self._checked[name] = seen
            wanted = bytes.fromhex(document.removeprefix("doc:"))
            places = range(status.st_size // ID)
            place = bisect_left(places, wanted, key=lambda each: os.pread(descriptor, ID, each * ID))
            return os.pread(descriptor, ID, place * ID) == wanted

    def read(self, name: str) -> bytes:
        """A whole list; ``Corrupt`` as well for what cannot be one."""
        data = self._store.read(name)
        if len(data) % ID:
            raise Corrupt(f"object {name} is not a list of documents: {len(data)} bytes")
        return data

    def sample(self, name: str) -> tuple[bytes, ...]:
        """The smallest ids of a list, unchecked; none where it cannot be read."""
        try:
            with self._store.open_unverified(name) as file:
                data = file.read(_SAMPLE * ID)
        except (Corrupt, OSError):
            return ()
        return tuple(_split(data))


class Recent:
    """The latest lists, to compare a new one with."""

    def __init__(self, reader: ListReader) -> None:
        self._reader = reader
        self._lists: deque[tuple[int, str, frozenset[bytes]]] = deque(maxlen=RECENT)
        self._bases: OrderedDict[str, bytes] = OrderedDict()

    def remember(self, number: int, name: str) -> None:
        """A list that later ones may be compared with."""
        self._lists.append((number, name, frozenset(self._reader.sample(name))))

    def change(self, ids: bytes) -> Change:
        """What a new list is against the one that it is most like, where that is shorter than the list."""
        best = max(self._likeness(ids), default=(0.0, 0, ""))
        if len(ids) >= _FEW * ID and best[0] >= _ALIKE:
            try:
                gained, lost = differing(ids, self._base(best[2]))
            except Corrupt:  # verify tells
                return Change(0, ids, b"")
            if 2 * (len(gained) + len(lost)) <= len(ids):
                return Change(best[1], gained, lost)
        return Change(0, ids, b"")

    def _base(self, name: str) -> bytes:
        """A list, out of the few that were asked for last."""
        data = self._bases.pop(name, None)
        if data is None:
            data = self._reader.read(name)
        self._bases[name] = data
        while sum(map(len, self._bases.values())) > _KEPT and len(self._bases) > 1:
            self._bases.popitem(last=False)
        return data

    def _likeness(self, ids: bytes) -> list[tuple[float, int, str]]:
        """How alike the latest lists are: of the smallest ids of both together, the share that both have."""
        mine = frozenset(_split(ids[: _SAMPLE * ID]))
        alike = []
        for number, name, theirs in self._lists:
            common = mine & theirs
            if common:
                least = sorted(mine | theirs)[:_SAMPLE]
                alike.append((len(common.intersection(least)) / len(least), number, name))
        return alike


def differing(now: bytes, before: bytes) -> tuple[bytes, bytes]:
    """The ids that the one sorted list has and the other has not, and the other way; a part at a time, for ids are
    spread evenly."""
    gained, lost = [], []
    parts = max(len(now), len(before)) // (_PART * ID) + 1
    here = there = 0
    for part in range(1, parts + 1):
        end = None if part == parts else ((part << 64) // parts).to_bytes(8)
        ends = [len(each) if end is None else _first(each, end) * ID for each in (now, before)]
        ours, theirs = set(_split(now[here : ends[0]])), set(_split(before[there : ends[1]]))
        gained += sorted(ours - theirs)
        lost += sorted(theirs - ours)
        here, there = ends
    return b"".join(gained), b"".join(lost)


def _first(ids: bytes, least: bytes) -> int:
    """The place of the first id that is not smaller."""
    return bisect_left(range(len(ids) // ID), least, key=lambda place: ids[place * ID : (place + 1) * ID])


def _split(ids: bytes) -> list[bytes]:
    return [ids[place : place + ID] for place in range(0, len(ids), ID)]
