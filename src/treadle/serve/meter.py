"""What one API key uses at this gateway: reserved before a request is worked on, settled when it has ended.

A request reserves the most it can use. It is let in as long as anything is left of every limit, so a key gets all of
its budget and at most one request more. Nearly always that costs no database: what was taken ahead is spent from
memory.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from treadle.core.errors import TreadleError
from treadle.record.api_key import ApiKey, Limit
from treadle.record.api_key_use import AHEAD, Account, Report, Share
from treadle.serve.errors import SERVER, ApiError

Exchange = Callable[[str, Report, Sequence[Limit], Mapping[str, int], int], list[Share]]
_MOST_AHEAD = 1024  # requests for which enough is taken at once
_BRIEF, _LONG = 0.5, 2.0  # seconds for which that lasted
_SOON = 0.05  # seconds after which it is asked again what is left, where others hold all of it


@dataclass(slots=True, eq=False)
class _Pot:
    """This gateway's part of one limit in one period: ``idle`` to be spent, ``busy`` reserved by requests. ``dry``:
    until when there is nothing; ``ends`` when the period does. Both on ``time.monotonic``'s clock."""

    limit: Limit
    period: str
    ends: float
    idle: int = 0
    busy: int = 0
    left: int = 0
    dry: float = 0.0
    exhausted: bool = False
    touched: bool = False

    @property
    def account(self) -> Account:
        return self.limit.what, self.period


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a request may use, and the pots it is taken from."""

    need: Mapping[str, int]
    pots: tuple[_Pot, ...] = ()


@dataclass(slots=True)
class Meter:
    """One key's. Used in one event loop; ``exchange`` blocks, and is called in a thread."""

    key: ApiKey
    exchange: Exchange | None = None
    _pots: list[_Pot] = field(default_factory=list)
    _spent: dict[Account, int] = field(default_factory=dict)  # since the last report was made
    _sending: Report | None = None  # until it is known to have arrived
    _number: int = 0
    _ahead: int = AHEAD
    _asked_at: float = -math.inf
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def reserve(self, tokens: int, money: int) -> Reservation:
        """Set aside what a request may use at most, ``money`` in billionths. Raises 429, and 503 without a database."""
        need = {"requests": 1, "tokens": tokens, "money": money}
        if not self.key.rules.limits or self.exchange is None:
            return Reservation(need)
        while (pots := self._taken(need)) is None:
            asking = asyncio.create_task(self._asked(need))
            asking.add_done_callback(_heard)
            await asyncio.shield(asking)  # a client that leaves does not leave it half done
        return Reservation(need, pots)

    def settle(self, reservation: Reservation, tokens: int, money: int) -> None:
        """Count what it used, and have the rest back."""
        used = {"requests": 1, "tokens": tokens, "money": money}
        accounts = {(what, "") for what in used} | {pot.account for pot in reservation.pots}
        for account in accounts:
            self._spent[account] = self._spent.get(account, 0) + used[account[0]]
        for pot in reservation.pots:
            what = pot.limit.what
            pot.busy -= reservation.need[what]
            pot.idle += max(0, reservation.need[what] - used[what])
            if not pot.exhausted:
                pot.dry = 0.0

    def cancel(self, reservation: Reservation) -> None:
        """It never reached an engine: nothing is counted."""
        for pot in reservation.pots:
            pot.busy -= reservation.need[pot.limit.what]
            pot.idle += reservation.need[pot.limit.what]

    async def report(self, *, last: bool = False) -> None:
        """Hand over what was spent, and what nobody needed since the last time; quick where there is nothing to say."""
        if self.exchange is None:
            return
        said = bool(self._spent or self._sending)
        for pot in self._pots:
            if pot.idle and (last or not pot.touched):
                pot.idle, said = 0, True
            pot.touched = False
        if said:
            async with self._lock:
                await self._exchanged({})

    def headers(self) -> list[tuple[bytes, bytes]]:
        """OpenAI's ``x-ratelimit-*`` of the limits by the minute."""
        found = []
        now = time.monotonic()
        for pot in self._pots:
            if pot.limit.per == "minute" and pot.ends > now:
                what = pot.limit.what.encode()
                found += [
                    (b"x-ratelimit-limit-" + what, b"%d" % pot.limit.most),
                    (b"x-ratelimit-remaining-" + what, b"%d" % max(0, pot.left + pot.idle)),
                    (b"x-ratelimit-reset-" + what, b"%.1fs" % (pot.ends - now)),
                ]
        return found

    async def _asked(self, need: Mapping[str, int]) -> None:
        """Ask for more, unless another request has meanwhile."""
        async with self._lock:
            if self._here(need) is None:
                await self._exchanged(need)

    def _here(self, need: Mapping[str, int]) -> list[_Pot] | None:
        """The pots, where each has enough. Raises 429 where one has not and asking for it is of no use."""
        now = time.monotonic()
        pots = [pot for pot in self._pots if pot.ends > now]
        for pot in pots:
            if pot.dry > now and pot.idle < max(1, need[pot.limit.what]):
                raise self._refused(pot, now)
        if len(pots) < len(self.key.rules.limits) or any(pot.idle < need[pot.limit.what] for pot in pots):
            return None
        return pots

    def _taken(self, need: Mapping[str, int]) -> tuple[_Pot, ...] | None:
        """Take it from what is here; None where it has to be asked for. Raises 429."""
        pots = self._here(need)
        if pots is None:
            return None
        for pot in pots:
            pot.idle -= need[pot.limit.what]
            pot.busy += need[pot.limit.what]
            pot.touched = True
        return tuple(pots)

    async def _exchanged(self, need: Mapping[str, int]) -> None:
        """Ask the database, under the lock. Raises 429 when it has nothing, 503 when it cannot be asked."""
        assert self.exchange is not None
        if need:  # what is here goes back, so that others are not refused for it
            for pot in self._pots:
                pot.idle = 0
            self._look_ahead()
        if self._sending is None:
            self._number += 1
            self._sending, self._spent = Report(self._number, self._spent), {}
        held = {pot.account: pot.idle + pot.busy + self._spent.get(pot.account, 0) for pot in self._pots}
        report = Report(self._sending.number, self._sending.spent, held)
        try:
            limits, ahead = self.key.rules.limits, self._ahead
            shares = await asyncio.to_thread(self.exchange, self.key.id, report, limits, need, ahead)
        except TreadleError as error:
            raise ApiError(
                503, "What this key has used cannot be counted now; try again", type=SERVER, code="budget_unavailable",
                retry_after=2,
            ) from error  # fmt: skip
        self._sending = None
        self._take_over(shares, asked=bool(need))
        if need and any(not share.granted and share.left <= 0 for share in shares):
            now = time.monotonic()
            raise self._refused(max(self._pots, key=lambda pot: pot.dry), now)

    def _look_ahead(self) -> None:
        """Take for twice as many requests where it lasted briefly, so that a busy key asks once or twice a second."""
        now = time.monotonic()
        lasted, self._asked_at = now - self._asked_at, now
        if lasted < _BRIEF:
            self._ahead = min(2 * self._ahead, _MOST_AHEAD)
        elif lasted > _LONG:
            self._ahead = AHEAD

    def _take_over(self, shares: Sequence[Share], *, asked: bool) -> None:
        now = time.monotonic()
        pots = {(*pot.account, pot.limit.per): pot for pot in self._pots}
        self._pots = []
        for share in shares:
            pot = pots.get((share.limit.what, share.period, share.limit.per)) or _Pot(share.limit, share.period, 0.0)
            pot.ends = math.inf if share.seconds is None else now + share.seconds
            pot.idle += share.granted
            pot.left = share.left
            pot.exhausted = share.spent >= share.limit.most
            if asked and not share.granted and share.left <= 0:
                pot.dry = pot.ends if pot.exhausted else now + _SOON
            self._pots.append(pot)

    def _refused(self, pot: _Pot, now: float) -> ApiError:
        """429 as OpenAI says it: a rate that is used up for now, or a budget that is used up."""
        limit = pot.limit
        seconds = max(1, math.ceil(pot.ends - now)) if pot.exhausted and pot.ends < math.inf else 1
        if limit.per == "minute":
            said = f"Rate limit of this key reached: {limit}; try again in {seconds} s"
            return ApiError(429, said, type=limit.what, code="rate_limit_exceeded", retry_after=seconds)
        if not pot.exhausted:
            said = f"All that is left of this key's {limit} is reserved by requests under way; try again"
            return ApiError(429, said, type=limit.what, code="rate_limit_exceeded", retry_after=seconds)
        when = f"; there is more in {seconds} s" if pot.ends < math.inf else ""
        return ApiError(
            429, f"The budget of this key is used up: {limit}{when}", type="insufficient_quota",
            code="insufficient_quota", retry_after=seconds if pot.ends < math.inf else None,
        )  # fmt: skip


def _heard(asking: asyncio.Task[None]) -> None:
    """Whoever asked may have left."""
    if not asking.cancelled():
        asking.exception()
