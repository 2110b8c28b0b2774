"""Work on long texts beside the event loop, where it would hold the other clients up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_LARGE = 20_000  # characters
# Not asyncio's own threads: whoever sends many long texts would keep the database from being asked, and keys with it.
_threads = ThreadPoolExecutor(2, thread_name_prefix="treadle-texts")


def is_large(size: int) -> bool:
    """Whether work on texts of so many characters is to be done aside."""
    return size > _LARGE


async def aside(size: int, work: Callable[[], _T]) -> _T:
    """What ``work`` gives, of texts of ``size`` characters: at once, or by a thread; nothing is begun for whoever has
    left by then."""
    if not is_large(size):
        return work()
    return await asyncio.get_running_loop().run_in_executor(_threads, work)
