"""The engine's process as the server sees it: requests go in, answers come out, and a worker that dies is replaced.

What was under way in a lost worker is lost with it, and told so; nothing is asked twice, because a request may be what
killed it.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from treadle.core.errors import TreadleError, UserError
from treadle.lm.engine import EngineGone, EngineStats
from treadle.lm.engine_wire import (
    Cancel,
    Failed,
    Generate,
    LoadAdapter,
    Open,
    Ready,
    Reply,
    Report,
    Request,
    Tokens,
    Values,
)
from treadle.lm.worker_process import WorkerProcess

_FIRST_PAUSE = 0.1  # seconds before a lost worker is replaced; doubled with each loss
_LONGEST_PAUSE = 5.0
_STEADY = 30.0  # a worker that lived this long starts the count anew
_ATTEMPTS = 5  # to open again, in a row, before requests are told that there is no engine
_LATER = 30.0  # seconds between the attempts after that: what is missing may come back
_PATIENCE = 30.0  # seconds that a request waits for the next worker, at least


@dataclass(frozen=True, slots=True)
class Lost:
    """What the requests in flight are told when their worker is gone."""

    reason: str
    closed: bool = False


Answer = Tokens | Values | Failed | Lost
Answers = asyncio.Queue[Answer]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was sent, to a certain worker."""

    number: int
    message: Request
    worker: WorkerProcess
    answers: Answers


class Askable(Protocol):
    """What takes requests."""

    async def ask(self, make: Callable[[int], Request]) -> Asked:
        """As ``EngineProcess.ask``."""
        ...

    def release(self, asked: Asked) -> None:
        """As ``EngineProcess.release``."""
        ...


async def answer_of(process: Askable, make: Callable[[int], Request]) -> Values:
    """A request with a single answer; ``EngineGone`` when it does not come."""
    asked = await process.ask(make)
    try:
        answer = await asked.answers.get()
    finally:
        process.release(asked)
    match answer:
        case Values():
            return answer
        case Failed():
            raise UserError(answer.message) if answer.user else TreadleError(answer.message)
        case Lost():
            raise EngineGone(answer.reason)
        case Tokens():
            raise TreadleError("the engine answered with tokens where values were asked for")


class EngineProcess:
    """Supervises one worker at a time. Made and used in one event loop."""

    def __init__(
        self,
        backend: str,
        folder: Path,
        *,
        threads: int | None,
        settings: dict[str, Any],
        environment: dict[str, str] | None = None,
        hang_seconds: float = 120.0,
        here: bool = False,
        python: str = sys.executable,
    ) -> None:
        """``backend``: ``module:Class``. ``hang_seconds``: silence with work to do after which a worker is killed.

        ``here``: the worker is a thread of this process, which nothing can kill. ``python``: the interpreter
        of one that is not.
        """
        self._opening = Open(backend, str(folder), threads, settings)
        self._environment = environment or {}
        self._hang_seconds = hang_seconds
        self._here = here
        self._python = python
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Answers | None] = {}  # None: cancelled, and not yet confirmed
        self._worker: WorkerProcess | None = None
        self._opened: asyncio.Future[Ready] | None = None
        self._up = asyncio.Event()
        self._broken: str | None = None
        self._closed = False
        self._supervisor: asyncio.Task[None] | None = None
        self._pending = (0, 0)
        self._patience = _PATIENCE
        self._loading: float | None = None  # seconds that it may take; the first time, whoever waits decides

    async def start(self) -> Ready:
        """Load the model; ``UserError`` when the folder is at fault, ``EngineGone`` when the worker died of it."""
        began = asyncio.get_running_loop().time()
        worker, ready = await self._start_worker()
        took = asyncio.get_running_loop().time() - began
        self._patience = max(_PATIENCE, 3 * took)
        self._loading = max(self._hang_seconds, 10 * took)
        self._supervisor = asyncio.create_task(self._supervise(worker), name="treadle-engine-supervisor")
        return ready

    @property
    def pid(self) -> int | None:
        """The worker's, while there is one."""
        return self._worker.pid if self._worker is not None else None

    def stats(self) -> EngineStats:
        """As of the last step; ``EngineGone`` while there is no worker."""
        if self._worker is None or self._broken or not self._up.is_set() or not self._worker.alive:
            raise EngineGone(self._broken or "the engine is being started again; ask again in a few seconds")
        running, queued = self._pending
        unseen = max(0, len(self._waiting) - running - queued)  # sent since
        return EngineStats(running, queued + unseen, self._worker.memory_bytes())

    async def ask(self, make: Callable[[int], Request]) -> Asked:
        """Send ``make(number)``; its answers come in the result's queue. The caller ends it with ``release``."""
        worker = await self._wait_for_worker()
        number = next(self._numbers)
        if not self._waiting:
            worker.heard_at = asyncio.get_running_loop().time()
        asked = Asked(number, make(number), worker, asyncio.Queue())
        self._waiting[number] = asked.answers
        try:
            worker.send(asked.message)
        except TreadleError:  # too large to be sent, and nothing to wait for
            del self._waiting[number]
            raise
        return asked

    def release(self, asked: Asked) -> None:
        """Nobody waits for this any more; cancels it unless its last answer has come."""
        if self._waiting.get(asked.number) is not asked.answers:
            return
        asked.worker.send(Cancel(asked.number))
        if isinstance(asked.message, Generate):
            self._waiting[asked.number] = None
        else:
            del self._waiting[asked.number]

    async def call(self, make: Callable[[int], Request]) -> Values:
        """A request with a single answer; ``EngineGone`` when it does not come."""
        return await answer_of(self, make)

    def tell(self, message: Request) -> None:
        """Say something that is not answered; nothing happens while there is no worker."""
        if self._worker is not None and self._worker.alive:
            self._worker.send(message)

    def reopen_with(self, folder: Path, adapters: Sequence[LoadAdapter]) -> None:
        """What the next worker is to open, where this one is lost."""
        self._opening = msgspec.structs.replace(self._opening, folder=str(folder), adapters=list(adapters))

    async def close(self) -> None:
        """End the worker. Requests in flight are told that it was closed."""
        self._closed = True
        self._lose(Lost("the engine was closed", closed=True))
        self._up.set()  # who waits for a worker finds out
        if self._supervisor is not None:
            self._supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervisor
        if self._worker is not None:
            await self._worker.close()
            self._worker = None

    async def _wait_for_worker(self) -> WorkerProcess:
        try:
            async with asyncio.timeout(self._patience):
                await self._up.wait()
        except TimeoutError:
            raise EngineGone("the engine is still being started again; ask again later") from None
        if self._closed:
            raise EngineGone("the engine was closed")
        if self._broken is not None:
            raise EngineGone(self._broken)
        if self._worker is None or not self._worker.alive:  # lost this moment
            raise EngineGone("the engine is being started again; ask again in a few seconds")
        return self._worker

    async def _start_worker(self) -> tuple[WorkerProcess, Ready]:
        self._opened = asyncio.get_running_loop().create_future()
        worker = self._worker = await WorkerProcess.start(
            self._on_reply, self._environment, here=self._here, python=self._python
        )
        worker.send(self._opening)
        try:
            either: tuple[asyncio.Future[Any], ...] = (self._opened, worker.gone)
            await asyncio.wait(either, timeout=self._loading, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # it is loading, and would not hear a word
            worker.kill("the engine was closed")
            await worker.gone
            raise
        if not self._opened.done():
            worker.kill(f"the engine's worker was not ready in {self._loading or 0:.0f} s and was ended")
            await worker.gone
            raise EngineGone(f"{self._opening.folder}: {worker.gone.result()}")
        try:
            ready = self._opened.result()
        except TreadleError:
            await worker.close()
            raise
        self._pending, self._broken = (0, 0), None
        self._up.set()
        return worker, ready

    async def _supervise(self, worker: WorkerProcess) -> None:
        losses = 0
        while True:
            began = asyncio.get_running_loop().time()
            watchdog = asyncio.create_task(self._watch(worker))
            try:
                reason = await asyncio.shield(worker.gone)
            finally:
                watchdog.cancel()
            self._up.clear()
            self._lose(Lost(reason))
            losses = 0 if asyncio.get_running_loop().time() - began > _STEADY else losses + 1
            worker = await self._next_worker(losses)

    async def _next_worker(self, losses: int) -> WorkerProcess:
        """Tried until there is one; after some attempts requests no longer wait for it."""
        for attempt in itertools.count(1):
            first = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(losses + attempt - 1, 16))
            await asyncio.sleep(first if attempt <= _ATTEMPTS else _LATER)
            try:
                return (await self._start_worker())[0]
            except (TreadleError, OSError) as error:
                if attempt >= _ATTEMPTS:
                    self._broken = f"the engine could not be started again in {attempt} attempts ({error})"
                    self._up.set()
        raise AssertionError("unreachable")

    async def _watch(self, worker: WorkerProcess) -> None:
        """Kill a worker that has work and says nothing."""
        while True:
            await asyncio.sleep(self._hang_seconds / 4)
            if self._silent_for(worker) < self._hang_seconds:
                continue
            await asyncio.sleep(0.1)  # if this loop was held up, its answers are read now
            if (silent := self._silent_for(worker)) >= self._hang_seconds:
                worker.kill(f"the engine's worker gave no sign for {silent:.0f} s and was ended")
                return

    def _silent_for(self, worker: WorkerProcess) -> float:
        return asyncio.get_running_loop().time() - worker.heard_at if self._waiting else 0.0

    def _lose(self, lost: Lost) -> None:
        waiting, self._waiting = self._waiting, {}
        for answers in waiting.values():
            if answers is not None:
                answers.put_nowait(lost)

    def _on_reply(self, reply: Reply) -> None:
        match reply:
            case Report():
                self._pending = (reply.running, reply.queued)
                for tokens in reply.tokens:
                    self._pass_on(tokens.number, tokens, last=tokens.finish is not None)
            case Values():
                self._pass_on(reply.number, reply, last=True)
            case Failed() if reply.number:
                self._pass_on(reply.number, reply, last=True)
            case Failed():
                if self._opened is not None and not self._opened.done():
                    error = UserError(reply.message) if reply.user else TreadleError(reply.message)
                    self._opened.set_exception(error)
            case Ready():
                if self._opened is not None and not self._opened.done():
                    self._opened.set_result(reply)

    def _pass_on(self, number: int, answer: Answer, *, last: bool) -> None:
        answers = self._waiting.pop(number, None) if last else self._waiting.get(number)
        if answers is not None:
            answers.put_nowait(answer)
