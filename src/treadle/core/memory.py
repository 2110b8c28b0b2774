"""Memory that was freed, given back to the system: glibc keeps it for itself otherwise."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """After something large was let go of; some milliseconds. Elsewhere than on glibc there is nothing to do."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
