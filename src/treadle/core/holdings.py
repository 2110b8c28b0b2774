"""What a bucket holds, as far as was asked lately.

That something is there is believed for some seconds; that something is not there is asked again each time, because
another machine may have put it there just now.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from treadle.core.remote import Remote, is_there, listed, place

_SECONDS = 10.0  # for how long an answer is believed
_ONE_BY_ONE = 16  # objects that are asked for one by one in that time; for more of them all are listed
_SHARE = 5  # a list is believed for this many times as long as it took, so that no machine only lists


class Holdings:
    """Objects that are at a remote. For use from many threads."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Believe nothing any more: somebody else may have changed it."""
        with self._lock:
            self._start()

    def _start(self, seconds: float = _SECONDS) -> None:
        self._there: set[str] = set()
        self._asked = 0
        self._until = time.monotonic() + seconds

    def hold(self, digest: str) -> bool:
        """Whether an object is there."""
        with self._lock:
            if time.monotonic() > self._until:
                self._start()
            if digest in self._there:
                return True
            self._asked += 1
            if self._asked == _ONE_BY_ONE + 1:
                self._list()
                if digest in self._there:
                    return True
        if not any(is_there(self._remote, place(kind, digest)) for kind in ("objects", "lists")):
            return False
        self.learn((digest,))
        return True

    def _list(self) -> None:
        began = time.monotonic()
        there = listed(self._remote, "objects") | listed(self._remote, "lists")
        self._start(max(_SECONDS, _SHARE * (time.monotonic() - began)))
        self._there, self._asked = there, _ONE_BY_ONE + 1

    def learn(self, digests: Iterable[str]) -> None:
        """These were put there just now."""
        with self._lock:
            self._there.update(digests)

    def lose(self, digests: Iterable[str]) -> None:
        """These are there no more."""
        with self._lock:
            self._there.difference_update(digests)
