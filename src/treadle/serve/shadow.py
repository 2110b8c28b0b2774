"""Work for a release on trial, done in the background: a bounded number waits, and what is beyond that is dropped and
counted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from treadle.serve.errors import ApiError
from treadle.serve.release import Serving

_MOST_BYTES = 16 << 20  # of bodies that wait
Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Job:
    work: Work
    serving: Serving
    size: int


class Shadows:
    """One for each gateway, used in its event loop."""

    def __init__(self, dropped: Callable[[Serving, int], None], failed: Callable[[BaseException], None]) -> None:
        """``dropped`` is told how many copies for a release were not answered, ``failed`` what nobody foresaw."""
        self._dropped = dropped
        self._failed = failed
        self._waiting: deque[_Job] = deque()
        self._bytes = 0
        self._running: dict[asyncio.Task[None], _Job] = {}
        self._at_once = 1

    @property
    def waiting(self) -> int:
        """Copies that are not begun yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Copies that are being answered."""
        return len(self._running)

    def add(self, work: Work, serving: Serving, *, size: int, most: int, at_once: int) -> None:
        """Do it when its turn comes; ``size`` bytes wait with it, ``most`` may wait, ``at_once`` be under way."""
        self._at_once = at_once
        full = len(self._running) >= at_once and len(self._waiting) >= most
        if full or self._bytes + size > _MOST_BYTES:
            self._dropped(serving, 1)
            return
        self._waiting.append(_Job(work, serving, size))
        self._bytes += size
        self._begin()

    def _begin(self) -> None:
        while self._waiting and len(self._running) < self._at_once:
            job = self._waiting.popleft()
            self._bytes -= job.size
            task = asyncio.create_task(self._run(job), name="shadow")
            self._running[task] = job
            task.add_done_callback(self._ended)

    async def _run(self, job: _Job) -> None:
        try:
            await job.work()
        except ApiError:
            return  # it stands in the record, where it came so far

    def _ended(self, task: asyncio.Task[None]) -> None:
        job = self._running.pop(task)
        if task.cancelled():
            self._dropped(job.serving, 1)
        elif (error := task.exception()) is not None:
            self._failed(error)
        self._begin()

    async def end(self, serving: Serving) -> None:
        """A release's engine is about to be closed: drop what is for it."""
        kept = [job for job in self._waiting if job.serving.engine is not serving.engine]
        if len(kept) < len(self._waiting):
            self._dropped(serving, len(self._waiting) - len(kept))
        self._waiting = deque(kept)
        self._bytes = sum(job.size for job in kept)
        tasks = [task for task, job in self._running.items() if job.serving.engine is serving.engine]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Drop everything."""
        for serving in [job.serving for job in [*self._waiting, *self._running.values()]]:
            await self.end(serving)
