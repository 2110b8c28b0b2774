"""Where shards are worked on: this process, or a pool of them. The shards decide the result, never the executor."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Protocol, TypeVar

S = TypeVar("S")
R = TypeVar("R")


class Executor(Protocol):
    """Runs a picklable function over shards; results come in shard order, whoever finishes first."""

    name: str

    def map(self, function: Callable[[S], R], shards: Iterable[S]) -> Iterator[R]:
        """Results in the order of the shards."""
        ...


class InProcess:
    """One shard after the other, here."""

    name = "process"

    def map(self, function: Callable[[S], R], shards: Iterable[S]) -> Iterator[R]:
        """Lazily, so a pipeline holds one shard at a time."""
        return map(function, shards)


class Pool:
    """A pool of fresh processes, one per processor by default."""

    name = "pool"

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or os.cpu_count() or 1

    def map(self, function: Callable[[S], R], shards: Iterable[S]) -> Iterator[R]:
        """Shards are sent as workers become free; two for each wait in memory, or wait to be taken."""
        context = multiprocessing.get_context("spawn")
        waiting: deque[Future[R]] = deque()
        with ProcessPoolExecutor(self.workers, mp_context=context) as pool:
            try:
                for shard in shards:
                    waiting.append(pool.submit(function, shard))
                    if len(waiting) > 2 * self.workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
