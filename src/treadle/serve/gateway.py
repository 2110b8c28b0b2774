"""The gateway: what answers (a release and its engine), how requests are recorded, and who may still come in.

Everything that a hot swap replaces is one object, `Serving`. A request takes ``gateway.serving`` once, when it
arrives, and keeps to it; so replacing it never mixes two releases in one answer.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

from treadle.core.errors import TreadleError
from treadle.lm.engine import Engine, EngineStats
from treadle.serve.errors import SERVER, ApiError, model_not_found
from treadle.serve.metrics import Metrics
from treadle.serve.recorder import Recorder

API_KEY_VARIABLE = "TREADLE_API_KEY"
KEY_ID = "default"  # the id that interactions record for the one key there is
RecordMode = Literal["full", "redacted", "none"]


class Encoder(Protocol):
    """The part of a tokenizer that the gateway uses; `lm.tokenizer.ChatTokenizer` is one."""

    def encode_chat(self, messages: Sequence[Any], *, add_generation_prompt: bool = True) -> list[int]:
        """Token ids of a conversation; ``UserError`` when the chat template refuses it."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        ...


@dataclass(frozen=True, slots=True)
class Price:
    """What tokens cost, per million; ``currency`` is an ISO 4217 code."""

    currency: str
    prompt: float
    completion: float


@dataclass(frozen=True, slots=True)
class ServedRelease:
    """What the API says of a release. ``name`` is ``NAME@vN``, ``created`` in seconds since 1970."""

    name: str
    digest: str
    aliases: tuple[str, ...] = ()
    task: str = "chat"
    created: int = 0
    system_prompt: str | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    price: Price | None = None

    def answers_to(self, asked: str) -> bool:
        """True for the name with or without its version, for ``NAME@alias`` and for the digest."""
        base = self.name.partition("@")[0]
        return asked in (self.name, base, self.digest) or asked in [f"{base}@{alias}" for alias in self.aliases]


@dataclass(frozen=True, slots=True)
class Serving:
    """A release with the engine and the tokenizer that run it."""

    release: ServedRelease
    engine: Engine
    tokenizer: Encoder | None = None


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Limits and rules. Sizes in bytes, times in seconds; ``max_in_flight`` requests are held at once."""

    record: RecordMode = "redacted"
    retention_seconds: float | None = None
    purpose: str | None = None
    api_key: str | None = field(default_factory=lambda: os.environ.get(API_KEY_VARIABLE) or None, repr=False)
    max_body_bytes: int = 4 << 20
    max_in_flight: int = 256
    body_seconds: float = 30.0
    request_seconds: float = 600.0


class Gateway:
    """One per server. Made and used in one event loop."""

    def __init__(
        self,
        serving: Serving,
        recorder: Recorder,
        *,
        settings: GatewaySettings | None = None,
        redact: Callable[[str], str] | None = None,
    ) -> None:
        """``redact`` takes personal data out of a text; it is required when ``settings.record`` is ``redacted``."""
        self.serving = serving
        self.recorder = recorder
        self.settings = settings or GatewaySettings()
        if self.settings.record == "redacted" and redact is None:
            raise ValueError("record: redacted needs a function that redacts")
        self.redact = redact or (lambda text: text)
        self.draining = False
        self.metrics = Metrics(self)
        self._working: set[asyncio.Task[Any]] = set()
        self._aborted: set[asyncio.Task[Any]] = set()
        self._seconds = 1.0  # moving average of how long a request takes

    @property
    def in_flight(self) -> int:
        """Requests that hold a place."""
        return len(self._working)

    def serving_for(self, model: str | None) -> Serving:
        """What answers to that model name; without a name, the one there is. Raises 404."""
        serving = self.serving
        if model is not None and not serving.release.answers_to(model):
            raise model_not_found(model, serving.release.name)
        return serving

    def key_of(self, authorization: str | None) -> str | None:
        """The id of the key that a request carries, ``None`` where none is asked for. Raises 401."""
        expected = self.settings.api_key
        if expected is None:
            return None
        scheme, _, given = (authorization or "").partition(" ")
        # Compared as bytes and in constant time: how long it takes says nothing about the key.
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), expected.encode()):
            return KEY_ID
        raise ApiError(
            401, "Incorrect or missing API key; send it as 'Authorization: Bearer KEY'", code="invalid_api_key"
        )

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for the current task. Raises 429 when all are taken, 503 when `abort` ends it."""
        if len(self._working) >= self.settings.max_in_flight:
            raise ApiError(
                429,
                f"The server holds {self.settings.max_in_flight} requests already; try again later",
                type="rate_limit_error",
                code="queue_full",
                retry_after=max(1, min(60, round(self._seconds))),
            )
        task = current_task()
        self._working.add(task)
        started = time.perf_counter()
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._aborted:
                raise
            while task.cancelling():
                task.uncancel()
            raise shutting_down() from None
        finally:
            self._working.discard(task)
            self._aborted.discard(task)
            self._seconds += 0.1 * (time.perf_counter() - started - self._seconds)

    def engine_stats(self) -> EngineStats:
        """The engine's own count; zeros when it is gone."""
        try:
            return self.serving.engine.stats()
        except TreadleError:
            return EngineStats()

    def ready(self) -> bool:
        """True when a request sent now would be answered."""
        if self.draining:
            return False
        try:
            self.serving.engine.stats()
        except TreadleError:
            return False
        return True

    def replace(self, serving: Serving) -> Serving:
        """Answer with this from now on; returns what answered before, which its last requests still use."""
        before, self.serving = self.serving, serving
        return before

    async def drain(self, seconds: float) -> bool:
        """Take no new requests and wait for those in flight; True when all ended within ``seconds``."""
        self.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._working:
                    await asyncio.wait(set(self._working))
        return not self._working

    async def abort(self) -> None:
        """Cancel what is in flight: each is recorded as cancelled and its client told."""
        tasks = set(self._working)
        self._aborted |= tasks
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)


def current_task() -> asyncio.Task[Any]:
    """The task that runs; there is one wherever a request is handled."""
    return cast("asyncio.Task[Any]", asyncio.current_task())


def shutting_down() -> ApiError:
    """503: this server is about to end; another will answer."""
    return ApiError(503, "The server is shutting down", type=SERVER, code="shutting_down", retry_after=1)
