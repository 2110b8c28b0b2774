"""What came first under each key, for as many keys as there are: the latest in memory, the others on disk.

The disk's are a database without a name, so that nothing is left of it however the process ends.
"""

from __future__ import annotations

from treadle.text.scratch import Scratch

_IN_MEMORY = 4_000_000  # bytes that what is not yet written may take
_ENTRY = 200  # of them for an entry whatever is in it


class FirstSeen:
    """The first value of each key."""

    def __init__(self) -> None:
        self._near: dict[bytes, bytes] = {}
        self._room = _IN_MEMORY
        self._far: Scratch | None = None

    def keep(self, key: bytes, value: bytes = b"") -> bytes | None:
        """The value that came first under this key; None when this one is the first, and is kept."""
        known = self._near.get(key)
        if known is None and self._far is not None:
            for (known,) in self._far.run("SELECT value FROM first WHERE key = ?", key):
                return bytes(known)
        if known is None:
            self._near[key] = value
            self._room -= _ENTRY + len(key) + len(value)
            if self._room < 0:
                self._write()
        return known

    def _write(self) -> None:
        if self._far is None:
            self._far = Scratch("CREATE TABLE first (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        # In the order of their keys, so that neighbors share a page.
        self._far.run_many("INSERT INTO first VALUES (?, ?)", sorted(self._near.items()))
        self._near.clear()
        self._room = _IN_MEMORY
