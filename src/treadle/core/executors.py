"""Where shards are worked on: this process, or a pool of them. The shards decide the result, never the executor."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

from treadle.core.errors import TreadleError, UserError

S = TypeVar("S")
R = TypeVar("R")


class Executor(Protocol):
    """Runs a picklable function over shards; results come in shard order, whoever finishes first."""

    name: str

    def map(self, function: Callable[[S], R], shards: Iterable[S]) -> Iterator[R]:
        """Results in the order of the shards."""
        ...

    def close(self) -> None:
        """End what it started; ``map`` may be called again."""
        ...


class InProcess:
    """One shard after the other, here."""

    name = "process"

    def map(self, function: Callable[[S], R], shards: Iterable[S]) -> Iterator[R]:
        """Lazily, so a pipeline holds one shard at a time."""
        return map(function, shards)

    def close(self) -> None:
        """Nothing was started."""


class Pool:
    """A pool of fresh processes, one per processor by default; they stay from one transform to the next."""

    name = "pool"

    def __init__(self, workers: int | None = None) -> None:
        """``UserError`` for fewer workers than one."""
        self.workers = processors() if workers is None else workers
        if self.workers < 1:
            raise UserError(f"pool: expected workers of 1 or more, not {workers}")
        self._pool: ProcessPoolExecutor | None = None

    def map(self, function: Callable[[S], R], shards: Iterable[S]) -> Iterator[R]:
        """Shards are sent as workers become free; two for each wait in memory, or wait to be taken.

        ``TreadleError`` when a worker is killed.
        """
        waiting: deque[Future[R]] = deque()
        try:
            for shard in shards:
                waiting.append(self._started().submit(function, shard))
                if len(waiting) > 2 * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            self.close()
            raise TreadleError(
                "a process of the pool was killed (there may be too little memory); run the same command again,"
                " with fewer workers if it happens twice"
            ) from None
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """End the processes; what is being worked on is waited for."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, mp_context=context)
        return self._pool


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
