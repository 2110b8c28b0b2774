"""The gateway: what answers (tables of releases), how requests are recorded, and who may still come in.

A hot swap replaces the table. What is in the table is open; what falls out of it is closed when the last of its
requests has ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from treadle.core.errors import TreadleError
from treadle.lm.engine import EngineStats
from treadle.record.recording import Recording
from treadle.serve.admission import Admission
from treadle.serve.allowance import Allowance
from treadle.serve.errors import RATE, SERVER, ApiError
from treadle.serve.keyring import KeyBook, Keyring, no_key
from treadle.serve.metrics import Metrics
from treadle.serve.recorder import Recorder
from treadle.serve.release import Price as Price
from treadle.serve.release import ServedRelease as ServedRelease
from treadle.serve.release import Serving as Serving
from treadle.serve.served_model import ServedModel
from treadle.serve.shadow import Shadows
from treadle.serve.table import Table

if TYPE_CHECKING:
    from treadle.record.slo import Slo

API_KEY_VARIABLE = "TREADLE_API_KEY"
_HOUR = 3600.0  # seconds
_DIGEST = "b3:"
logger = logging.getLogger("treadle.serve")
RecordMode = Literal["full", "redacted", "none"]


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Limits and rules. Sizes in bytes, times in seconds; ``max_in_flight`` requests are held at once, fewer where
    ``slo`` would not be kept otherwise.

    ``hosts``: names by which a server without a key may be asked beside ``localhost`` and addresses; None: any.
    ``degrade_seconds``: how long known keys are let in while their database is away; 0 for not at all.
    ``sticky``: whose requests all get the same release while there is a canary, those of a ``user``, of a ``key``, or
    those with the same value of the header of this name, in small letters.
    ``feedback_per_hour`` is for each user, or for the callers of one key who name none; one key gives at most
    ``feedback_per_key`` an hour, whatever users it names.
    """

    record: RecordMode = "redacted"
    retention_seconds: float | None = None
    purpose: str | None = None
    api_key: str | None = field(default_factory=lambda: os.environ.get(API_KEY_VARIABLE) or None, repr=False)
    max_body_bytes: int = 4 << 20
    max_in_flight: int = 256
    slo: Slo | None = None
    hosts: frozenset[str] | None = frozenset()
    degrade_seconds: float = 0.0
    sticky: str = "user"
    body_seconds: float = 30.0
    request_seconds: float = 600.0
    feedback_per_hour: int = 600
    feedback_per_key: int = 3000


class Gateway:
    """One per server. Made and used in one event loop."""

    def __init__(
        self,
        answers: Serving | Table,
        recorder: Recorder,
        *,
        settings: GatewaySettings | None = None,
        redact: Callable[[str], str] | None = None,
        keys: KeyBook | None = None,
        name: str = "",
        others: Sequence[ServedModel] = (),
    ) -> None:
        """``redact`` takes personal data out of a text; it is required where ``redacted`` is what is kept.

        Keys of ``keys`` are good beside ``settings.api_key`` once the keyring was started, and for ``others`` as well:
        models that answer beside this one, which is called ``name`` then. Raises ``ValueError`` where two have one
        name.
        """
        self.settings = settings or GatewaySettings()
        rules = self.settings
        recording = Recording(rules.record, rules.retention_seconds, rules.purpose)
        table = Table(answers) if isinstance(answers, Serving) else answers
        self.first = ServedModel(name, recorder, recording, table=table, sticky=rules.sticky)
        self.models = (self.first, *others)
        self._named = {each.name: each for each in self.models}
        if others and ("" in self._named or len(self._named) < len(self.models)):
            raise ValueError("each model of a server needs a name of its own")
        if redact is None and any(each.recording.mode == "redacted" for each in self.models):
            raise ValueError("record: redacted needs a function that redacts")
        self.redact = redact or (lambda text: text)
        self.admission = Admission(self.settings.max_in_flight, self.settings.slo)
        self.draining = False
        self.arriving = 0  # bytes of bodies that are not whole yet
        self.keyring = Keyring(
            self.settings.api_key, keys, self.end_requests_of, degrade_seconds=self.settings.degrade_seconds
        )
        self.metrics = Metrics(self)
        for each in self.models:
            each.shadows = Shadows(self._note_dropped, self._note_failed)
        self._feedback = (
            Allowance(self.settings.feedback_per_key, _HOUR),
            Allowance(self.settings.feedback_per_hour, _HOUR),
        )
        self._admitted: set[asyncio.Task[Any]] = set()  # with a place or on the way to one
        self._aborted = False
        self._working: dict[asyncio.Task[Any], Serving] = {}
        self._kept: dict[asyncio.Task[Any], list[Serving]] = {}  # chosen, and not working yet
        self._keys: dict[asyncio.Task[Any], str] = {}
        self._ended: dict[asyncio.Task[Any], Exception] = {}  # tasks that were cancelled, and why
        self._ending: dict[asyncio.Task[None], Serving] = {}
        self._seconds = 1.0  # moving average of how long a request takes

    def _note_dropped(self, serving: Serving, count: int) -> None:
        self.metrics.shadow_requests.labels(serving.release.name, "dropped").inc(count)

    def _note_failed(self, error: BaseException) -> None:
        logger.error("a copy for the shadow failed: %s", type(error).__name__)

    @property
    def table(self) -> Table:
        """What answers for the first model."""
        return self.first.table

    @property
    def serving(self) -> Serving:
        """What answers a request that asks for nothing, canary aside. Raises 503 when nothing does."""
        return self.first.serving

    def model_of(self, asked: str | None) -> ServedModel:
        """Whose releases a request wants, by a name or a digest; the first where it names none that is here."""
        if asked is None or len(self.models) == 1:
            return self.first
        found = self._named.get(asked.partition("@")[0])
        if found is None and asked.startswith(_DIGEST):
            held = (each for each in self.models if any(s.release.digest == asked for s in each.table.answering()))
            found = next(held, None)
        return found or self.first

    @property
    def in_flight(self) -> int:
        """Requests that hold a place."""
        return len(self._working)

    def in_flight_of(self, serving: Serving) -> int:
        """Those of them that a release answers."""
        return sum(each.engine is serving.engine for each in self._working.values())

    def admit_feedback(self, user: str | None, key: str | None) -> None:
        """Count one piece of feedback; ``user`` is a keyed digest. Raises 429 when there were too many."""
        for allowance, name in zip(self._feedback, (f"key {key}", user or f"key {key}"), strict=True):
            wait = allowance.take(name)
            if wait is not None:
                raise ApiError(
                    429,
                    f"Too much feedback from one sender: at most {allowance.most} in an hour",
                    type=RATE,
                    code="feedback_limit",
                    retry_after=wait,
                )

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """The current task answers a request that was let in: `drain` waits for it."""
        task = current_task()
        self._admitted.add(task)
        try:
            yield
        finally:
            self._admitted.discard(task)

    @contextmanager
    def place(self, serving: Serving, key: str | None = None) -> Iterator[None]:
        """Hold one of the places for the current task, and the engine open for as long; ``key`` is the caller's.

        Raises 429 when all are taken, 503 when `abort` ends it, 401 when the key does, and what `end` is told. No await
        may come between `choose` and this, but within `keeping`.
        """
        if self._aborted:
            raise shutting_down()
        limit = self.admission.limit
        if len(self._working) >= limit:
            raise ApiError(
                429,
                f"The server holds {limit} requests already, as many as it can answer in time; try again later",
                type=RATE,
                code="queue_full",
                retry_after=max(1, min(60, round(self._seconds))),
            )
        task = current_task()
        self._working[task] = serving
        if key is not None:
            self._keys[task] = key
        started = time.perf_counter()
        try:
            yield
        except asyncio.CancelledError:
            why = self._ended.get(task)
            if why is None:
                raise
            while task.cancelling():
                task.uncancel()
            raise why from None
        finally:
            del self._working[task]
            self._keys.pop(task, None)
            self._ended.pop(task, None)
            self._seconds += 0.1 * (time.perf_counter() - started - self._seconds)

    @contextmanager
    def keeping(self, serving: Serving) -> Iterator[None]:
        """Hold the engine open for the current task, which has chosen it and has something to do before it has a
        place, or while others have one for it. A task may hold several: the fallback, while the first is held for
        what else was asked."""
        task = current_task()
        kept = self._kept.setdefault(task, [])
        kept.append(serving)
        try:
            yield
        finally:
            kept.pop()
            if not kept:
                del self._kept[task]

    def servings(self) -> list[Serving]:
        """Every release whose engine is open, those that end with their last requests included."""
        return [*(serving for each in self.models for serving in each.table.held()), *self._ending.values()]

    def engine_stats(self) -> EngineStats:
        """The open engines' own count, together; one that is gone counts as zero."""
        found = [_stats(serving) for serving in self.servings()]
        return EngineStats(
            sum(each.running for each in found),
            sum(each.queued for each in found),
            sum(each.memory_bytes for each in found),
        )

    def ready(self) -> bool:
        """True when a request for one of the models at least would be answered, if it was sent now."""
        return not self.draining and any(each.ready() for each in self.models)

    def replace(self, table: Table, model: ServedModel | None = None) -> None:
        """Answer with this from now on, for a model or the first. Engines that are not in it are closed when their last
        requests have ended."""
        changed = model or self.first
        before, changed.table = changed.table, table
        for serving in before.held():
            if all(serving.engine is not each.engine for each in table.held()):
                task = asyncio.create_task(self._end(serving, changed), name=f"ending {serving.release.name}")
                self._ending[task] = serving
                task.add_done_callback(lambda done: self._ending.pop(done, None))

    async def _end(self, serving: Serving, model: ServedModel) -> None:
        while tasks := {task for task, each in self._holding() if each.engine is serving.engine}:
            await asyncio.wait(tasks)
        await model.shadows.end(serving)
        with suppress(TreadleError):
            await serving.engine.close()

    def _holding(self) -> Iterator[tuple[asyncio.Task[Any], Serving]]:
        yield from self._working.items()
        yield from ((task, each) for task, kept in self._kept.items() for each in kept)

    async def close(self) -> None:
        """Close every engine; nothing answers after that."""
        await self.keyring.close()
        for model, row in [(each, row) for each in self.models for row in each.unrecorded]:  # the last chance
            with suppress(Exception):
                model.recorder.interaction(row)
        open_ones = self.servings()
        for model in self.models:
            model.table = Table()
            await model.shadows.close()
        tasks = list(self._ending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for serving in open_ones:
            with suppress(TreadleError):
                await serving.engine.close()

    async def drain(self, seconds: float) -> bool:
        """Take no new requests and wait for those in flight; True when all ended within ``seconds``."""
        self.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while tasks := self._admitted.union(self._working):
                    await asyncio.wait(tasks)
        return not self._working and not self._admitted

    async def abort(self) -> None:
        """Cancel what is in flight: each is recorded as cancelled and its client told."""
        self._aborted = True  # who has no place yet gets none
        tasks = set(self._working)
        for task in tasks:
            self.end(task, shutting_down())
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    def end_requests_of(self, keys: frozenset[str]) -> None:
        """Cancel what is in flight for keys that are good no more; their clients are told."""
        for task in [task for task, key in self._keys.items() if key in keys]:
            self.end(task, key_ended())

    def end(self, task: asyncio.Task[Any], why: Exception) -> None:
        """Cancel a task that holds a place, where ``why`` is raised instead; the first reason counts."""
        if task in self._working and task not in self._ended:
            self._ended[task] = why
            task.cancel()


def _stats(serving: Serving) -> EngineStats:
    try:
        return serving.engine.stats()
    except TreadleError:
        return EngineStats()


def current_task() -> asyncio.Task[Any]:
    """The task that runs; there is one wherever a request is handled."""
    return cast("asyncio.Task[Any]", asyncio.current_task())


def key_ended() -> ApiError:
    """401: the key was revoked, or expired, while its request was under way."""
    return no_key("This API key was revoked or has expired")


def shutting_down() -> ApiError:
    """503: this server is about to end; another will answer."""
    return ApiError(503, "The server is shutting down", type=SERVER, code="shutting_down", retry_after=1)
