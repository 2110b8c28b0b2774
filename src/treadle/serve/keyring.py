"""Which API keys open this gateway, and what ends when one is revoked.

Keys are looked up again several times a second, so that a new one is good and a revoked one is not within that time,
also for a request that is under way. While they cannot be looked up, nobody is let in by them, but where the server is
told to degrade (`Outage`).
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from treadle.core.errors import TreadleError
from treadle.record.api_key import EVERY, PREFIX, ApiKey, Limit, Rules, digest_of
from treadle.record.api_key_use import Report, Share
from treadle.serve.errors import SERVER, ApiError
from treadle.serve.meter import Meter
from treadle.serve.outage import Outage

DEFAULT = "default"  # the id of the one key that TREADLE_API_KEY names
_LOOK = 0.25  # seconds between two looks
_REPORT = 1.0
_BEAT = 15.0
_STALE = 10.0  # seconds without a look after which keys are not taken for good
_LAST = 10.0  # seconds for the last report
logger = logging.getLogger("treadle.serve")


class KeyBook(Protocol):
    """Where keys and what they used are kept. All of it blocks, and is called in a thread."""

    def stamp(self) -> object:
        """Another one after each change of the keys."""
        ...

    def all(self) -> Sequence[ApiKey]:
        """Every key there ever was."""
        ...

    def clock(self) -> float:
        """Seconds since 1970, by a clock that all gateways have."""
        ...

    def exchange(
        self, key: str, report: Report, limits: Sequence[Limit], need: Mapping[str, int], ahead: int = ...
    ) -> list[Share]:
        """As `ApiKeyUse.exchange`."""
        ...

    def note(self, key: str, reports: Sequence[Report]) -> None:
        """As `ApiKeyUse.note`."""
        ...

    def begin(self) -> None:
        """This gateway may report from now on."""
        ...

    def beat(self) -> None:
        """It lives."""
        ...

    def end(self) -> None:
        """It will report nothing more."""
        ...


class Keyring:
    """One per gateway; used in its event loop."""

    def __init__(
        self,
        default: str | None,
        book: KeyBook | None,
        gone: Callable[[frozenset[str]], object],
        *,
        degrade_seconds: float = 0.0,
    ) -> None:
        """``default`` is the key that needs no book; ``gone`` is told the ids of those that are good no
        more, again and again; ``degrade_seconds`` as in `Outage`."""
        self._book = book
        self._gone = gone
        self._default = None if default is None else default.encode()
        self.outage = Outage(degrade_seconds)
        everything = ApiKey(DEFAULT, DEFAULT, "", 0.0, rules=Rules(scope=(EVERY,)))
        self._meters: dict[str, Meter] = {DEFAULT: self._metered(everything)}
        self._by_digest: dict[str, Meter] = {}
        self._stamp: object = None
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @property
    def required(self) -> bool:
        """Whether a request needs a key: once there was one, for ever."""
        return self._default is not None or bool(self._by_digest)

    async def start(self) -> None:
        """Look for the first time, and go on. Raises what the book raises."""
        if self._book is not None and self._task is None:
            await asyncio.to_thread(self._book.begin)
            await self._look()
            self._task = asyncio.create_task(self._keep_looking(self._book), name="keys")

    async def close(self) -> None:
        """Report what was used since the last time; what cannot be reported within ten seconds is noted, and whoever
        begins here next does it."""
        if self._task is None or self._book is None:
            return
        self._closing.set()
        last = asyncio.create_task(self._report_last(self._task, self._book), name="last report")
        self._task = None
        await asyncio.wait({last}, timeout=_LAST)
        if last.done():
            last.result()
            return
        logger.warning("the database with the API keys does not answer; what was not reported is noted")
        last.cancel()
        self._miss()

    async def _report_last(self, looking: asyncio.Task[None], book: KeyBook) -> None:
        await asyncio.wait({looking})  # not cancelled: what it says to the book is said to its end
        try:
            for meter in self._meters.values():
                await meter.report(last=True)
            await asyncio.to_thread(book.end)
        except (TreadleError, ApiError):
            self._miss()

    def find(self, authorizations: Sequence[bytes]) -> Meter | None:
        """The meter of the key that a request carries, None where none is asked for. Raises 401, 503."""
        fresh = self._book is None or self.outage.silent < _STALE or self.outage.may_lend
        if not self.required and fresh:
            return None
        given = _bearer(authorizations)
        ours = given is not None and given.startswith(PREFIX.encode())
        if given is not None and ours:  # before the default, which may be one of these: it stays what it is
            digest = digest_of(given.decode("latin-1"))
            meter = self._by_digest.get(digest)
            if meter is not None and hmac.compare_digest(meter.key.digest, digest):
                if not fresh:
                    raise _unchecked()
                why = meter.key.ended(self.outage.now())
                if why is None:
                    return meter
                raise no_key(f"This API key is {why}")
        # Compared as bytes and in constant time: how long it takes says nothing about the key.
        if given is not None and self._default is not None and hmac.compare_digest(given, self._default):
            return self._meters[DEFAULT]
        if ours and (not fresh or self.outage.lending):  # it may be a new one
            raise _unchecked()
        if not self.required:
            raise _unchecked()
        raise no_key("Incorrect or missing API key; send it as 'Authorization: Bearer KEY'")

    def meter(self, key: str | None) -> Meter | None:
        """Of a key's id."""
        return None if key is None else self._meters.get(key)

    def _metered(self, key: ApiKey) -> Meter:
        book = self._book
        return Meter(key) if book is None else Meter(key, book.exchange, book.note, self.outage)

    async def _keep_looking(self, book: KeyBook) -> None:
        reported = beaten = time.monotonic()
        told = ""
        while not self._closing.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._closing.wait()
            try:
                await self._look()
                now = time.monotonic()
                if now - reported > _REPORT:
                    reported = now
                    for meter in list(self._meters.values()):
                        await meter.report()
                if now - beaten > _BEAT:
                    beaten = now
                    await asyncio.to_thread(book.beat)
                told = ""
            except Exception as error:  # whatever it is, it is tried again
                self._miss()
                known = isinstance(error, TreadleError | ApiError)
                said = str(error) if known else type(error).__name__
                if said != told:  # once, not four times a second for as long as it lasts
                    logger.log(logging.WARNING if known else logging.ERROR, "API keys cannot be looked up: %s", said)
                    told = said

    def _miss(self) -> None:
        self.outage.missed()
        for meter in self._meters.values():
            meter.keep()

    async def _look(self) -> None:
        book = self._book
        assert book is not None

        def look() -> tuple[object, Sequence[ApiKey] | None, float]:
            stamp = book.stamp()
            return stamp, None if stamp == self._stamp else book.all(), book.clock()

        stamp, keys, clock = await asyncio.to_thread(look)
        self._stamp = stamp
        self.outage.answered(clock)
        if keys is not None:
            self._take(keys)
        ended = frozenset(each.key.id for each in self._by_digest.values() if each.key.ended(clock) is not None)
        if ended:
            self._gone(ended)

    def _take(self, keys: Iterable[ApiKey]) -> None:
        for key in keys:
            meter = self._meters.get(key.id)
            if meter is None:
                meter = self._meters[key.id] = self._metered(key)
            meter.key = key
            self._by_digest[key.digest] = meter


def no_key(message: str) -> ApiError:
    """401, as OpenAI says it."""
    return ApiError(401, message, code="invalid_api_key")


def _unchecked() -> ApiError:
    return ApiError(503, "Keys cannot be checked now; try again", type=SERVER, code="keys_unavailable", retry_after=2)


def _bearer(authorizations: Sequence[bytes]) -> bytes | None:
    """The token; None without one, and where several are sent: which of them counts is nobody's guess."""
    if len(authorizations) != 1:
        return None
    scheme, _, given = authorizations[0].partition(b" ")
    return given.strip() if scheme.lower() == b"bearer" else None
