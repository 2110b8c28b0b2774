"""A figure that may take long to work out: given as it was lately, and worked out again behind the page's back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)


_QUICK = 0.1  # seconds; what takes longer and has a rest is not worked out again for every change


class Lately(Generic[T]):
    """Keeps what ``work`` gave for ``keep`` seconds; then the next to ask starts it in a thread, one at a time.

    ``rest``: it is kept for at least so many times as long as it took, because pages share the processor with it.
    """

    def __init__(self, work: Callable[[], T], keep: float, rest: float = 0.0) -> None:
        self._work = work
        self._keep = keep
        self._rest = rest
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._value: T | None = None
        self._of, self._wanted = -1, 0  # which generation the value is of, and which is asked for
        self._at, self._took = 0.0, 0.0

    def get(self, wait: float = 0.0) -> T | None:
        """The value, a fresh one if it comes within ``wait`` seconds; None when there never was one."""
        deadline = time.monotonic() + wait
        while True:
            with self._lock:
                if self._fresh():
                    return self._value
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, args=(self._wanted,), daemon=True)
                    self._thread.start()
                thread = self._thread
            left = deadline - time.monotonic()
            if left <= 0:
                return self._value
            thread.join(left)

    def expire(self) -> None:
        """What is known, or just being worked out, is out of date; left to its time where that is much work."""
        with self._lock:
            if not self._rest or self._took < _QUICK:
                self._wanted += 1

    def close(self, wait: float = 5.0) -> None:
        """Let a thread that still works come to its end."""
        thread = self._thread
        if thread is not None:
            thread.join(wait)

    def _fresh(self) -> bool:
        age = time.monotonic() - self._at
        return self._of == self._wanted and age < max(self._keep, self._took * self._rest)

    def _run(self, generation: int) -> None:
        started = time.monotonic()
        try:
            value = self._work()
        except Exception as error:  # the page shows what was known before
            _log.warning("the console cannot work something out: %s: %s", type(error).__name__, error)
            with self._lock:
                self._of, self._at, self._thread = generation, time.monotonic(), None
            return
        with self._lock:
            self._value, self._of, self._at, self._thread = value, generation, time.monotonic(), None
            self._took = self._at - started
