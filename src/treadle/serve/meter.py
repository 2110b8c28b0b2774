"""What one API key uses at this gateway: reserved before a request is worked on, settled when it has ended.

A request reserves the most it can use. It is let in as long as anything is left of every limit, so a key gets all of
its budget and at most one request more. Nearly always that costs no database: what was taken ahead is spent from
memory. While the database is away, a server that degrades goes on with what it last knew to be left, and notes what
was used where a kill leaves it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from treadle.core.errors import TreadleError
from treadle.record.api_key import ApiKey, Limit
from treadle.record.api_key_use import AHEAD, Account, Report, Share, period_of
from treadle.serve.errors import SERVER, ApiError
from treadle.serve.outage import Outage

Exchange = Callable[[str, Report, Sequence[Limit], Mapping[str, int], int], list[Share]]
Note = Callable[[str, Sequence[Report]], None]
logger = logging.getLogger("treadle.serve")
_MOST_AHEAD = 1024  # requests for which enough is taken at once
_PATIENCE = 2.0  # seconds for which a server that degrades waits for its database,
_LONGEST = 10.0  # and one that refuses
_BRIEF, _LONG = 0.5, 2.0  # seconds for which that lasted
_SOON = 0.05  # seconds after which it is asked again what is left, where others hold all of it


@dataclass(slots=True, eq=False)
class _Pot:
    """This gateway's part of one limit in one period: ``idle`` to be spent, ``busy`` reserved by requests. ``dry``:
    until when there is nothing; ``ends`` when the period does. Both on ``time.monotonic``'s clock. ``spent``: in the
    period, by all gateways, when it was asked."""

    limit: Limit
    period: str
    ends: float
    idle: int = 0
    busy: int = 0
    left: int = 0
    spent: int = 0
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
    """One key's. Used in one event loop; ``exchange`` blocks, and is called in a thread; ``note`` writes a small file
    of what was not handed over yet."""

    key: ApiKey
    exchange: Exchange | None = None
    note: Note | None = None
    outage: Outage = field(default_factory=Outage)
    _pots: list[_Pot] = field(default_factory=list)
    _spent: dict[Account, int] = field(default_factory=dict)  # since the last report was made
    _sending: Report | None = None  # until it is known to have arrived
    _number: int = 0
    _ahead: int = AHEAD
    _asked_at: float = -math.inf
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _lent: bool = False  # the pots hold what the database gave nobody
    _noted: bool = False  # there is a file
    _unnoted: bool = False  # there ought to be, and it could not be written

    async def reserve(self, tokens: int, money: int) -> Reservation:
        """Set aside what a request may use at most, ``money`` in billionths. Raises 429, and 503 where the database
        cannot be asked, or does not answer within ten seconds."""
        need = {"requests": 1, "tokens": tokens, "money": money}
        if self._unnoted:
            self._write_down()
            if self._unnoted:
                raise _uncountable()
        if not self.key.rules.limits or self.exchange is None:
            return Reservation(need)
        while (pots := self._taken(need)) is None:
            asking = asyncio.create_task(self._asked(need))
            asking.add_done_callback(_heard)
            await self._patiently(asking)
        return Reservation(need, pots)

    def check(self) -> None:
        """Raises 429 where it is known that one of the limits is used up."""
        now = time.monotonic()
        for pot in self._pots:
            if pot.exhausted and pot.idle < 1 and min(pot.dry, pot.ends) > now:
                raise self._refused(pot, now)

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
        if self.outage.lending or self._noted:  # what is noted stays true
            self._write_down()

    def cancel(self, reservation: Reservation) -> None:
        """It never reached an engine, or another release answers now: nothing is counted."""
        for pot in reservation.pots:
            pot.busy -= reservation.need[pot.limit.what]
            pot.idle += reservation.need[pot.limit.what]

    def keep(self) -> None:
        """Note what was used and not handed over: the database cannot be asked."""
        if not self._noted and (self._spent or self._sending):
            self._write_down()

    async def report(self, *, last: bool = False) -> None:
        """Hand over what was spent, and what nobody needed since the last time; quick where there is nothing to say."""
        if self.exchange is None:
            return
        said = bool(self._spent or self._sending or self._lent)
        for pot in self._pots:
            if pot.idle and not self._lent and (last or not pot.touched):
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

    async def _patiently(self, asking: asyncio.Task[None]) -> None:
        """Until it is done, or the database is taken to be away; a client that leaves does not leave it half done.
        Raises 503 where nothing can be lent then."""
        done, _ = await asyncio.wait({asking}, timeout=_PATIENCE if self.outage.may_lend else _LONGEST)
        if done:
            asking.result()
            return
        self.outage.missed()
        if not self.outage.may_lend:
            raise _uncountable()

    async def _asked(self, need: Mapping[str, int]) -> None:
        """Ask for more, unless another request has meanwhile."""
        if self.outage.lending:  # not under the lock, which somebody may hold who waits for the database
            if self._here(need) is None:
                self._lend()
            return
        async with self._lock:
            if self._here(need) is None:
                await self._exchanged(need)

    def _here(self, need: Mapping[str, int]) -> list[_Pot] | None:
        """The pots, where each has enough. Raises 429 where one has not and asking for it is of no use."""
        now = time.monotonic()
        pots = [pot for pot in self._pots if pot.ends > now]
        for pot in pots:
            if pot.dry > now and pot.idle < self._least(max(1, need[pot.limit.what])):
                raise self._refused(pot, now)
        if len(pots) < len(self.key.rules.limits):
            return None
        return None if any(pot.idle < self._least(need[pot.limit.what]) for pot in pots) else pots

    def _least(self, need: int) -> int:
        """What has to be here; of what is lent anything will do, as the database would say, and is owed then."""
        return 1 if self._lent else need

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
        before = [(pot, pot.idle) for pot in self._pots]
        if need or self._lent:  # what is here goes back, so that others are not refused for it
            for pot in self._pots:
                pot.idle = 0
        if need:
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
            self._missed(need, before, error)
            return
        self._sending = None
        if self._noted:
            self._write_down()
        self._take_over(shares, asked=bool(need))
        if need and any(not share.granted and share.left <= 0 for share in shares):
            now = time.monotonic()
            raise self._refused(max(self._pots, key=lambda pot: pot.dry), now)

    def _missed(self, need: Mapping[str, int], before: Sequence[tuple[_Pot, int]], error: TreadleError) -> None:
        """The database could not be asked: go on with what was here before, or raise 503."""
        self.outage.missed()
        self._write_down()
        if self.outage.may_lend:
            for pot, idle in before:
                pot.idle += idle
        if not need or not self.outage.may_lend:
            raise _uncountable() from error
        self._lend()

    def _lend(self) -> None:
        """Without the database: what was left of each limit when it was asked last, or all of one in a period of which
        nothing is known here. Raises 429 where that is used up."""
        now, clock = time.monotonic(), self.outage.now()
        known = {pot.limit: pot for pot in self._pots if pot.ends > now}
        minute = period_of("minute", clock)[0]  # of those before it nobody will ask
        self._spent = {
            account: amount
            for account, amount in self._spent.items()
            if not account[1].startswith("i") or account[1] >= minute
        }
        pots: list[_Pot] = []
        for limit in self.key.rules.limits:
            period, seconds = period_of(limit.per, clock)
            ends = math.inf if seconds is None else now + seconds
            pots.append(known.get(limit) or _Pot(limit, period, ends, left=limit.most))
        self._pots, self._lent = pots, True
        for pot in pots:
            pot.idle, pot.left = pot.idle + max(0, pot.left), 0
            if pot.idle <= 0:
                pot.exhausted = not pot.busy
                pot.dry = now + _SOON
                raise self._refused(pot, now)

    def _write_down(self) -> None:
        """Note what was not handed over yet, or that there is nothing. What cannot be noted is used no further."""
        if self.note is None:
            return
        reports = [] if self._sending is None else [self._sending]
        if self._spent:
            reports.append(Report(self._number + 1, dict(self._spent)))
        try:
            self.note(self.key.id, reports)
        except OSError as error:
            if not self._unnoted:
                logger.error("what key %s uses cannot be noted: %s", self.key.id, error.strerror)  # noqa: TRY400
            self._unnoted = True
        else:
            self._noted, self._unnoted = bool(reports), False

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
        if self._lent:  # what was lent, perhaps while the answer was on its way, is the database's again
            self._lent = False
            for pot in self._pots:
                pot.idle = 0
        self._pots = []
        for share in shares:
            pot = pots.get((share.limit.what, share.period, share.limit.per)) or _Pot(share.limit, share.period, 0.0)
            pot.ends = math.inf if share.seconds is None else now + share.seconds
            pot.idle += share.granted
            pot.left, pot.spent = share.left, share.spent
            pot.exhausted = share.spent >= share.limit.most
            if asked and not share.granted and share.left <= 0:
                pot.dry = pot.ends if pot.exhausted else now + _SOON
            self._pots.append(pot)

    def _refused(self, pot: _Pot, now: float) -> ApiError:
        """429 as OpenAI says it: a rate that is used up for now, or a budget that is used up."""
        limit = pot.limit
        gone = pot.exhausted or self._all_counts(pot)
        seconds = max(1, math.ceil(pot.ends - now)) if gone and pot.ends < math.inf else 1
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

    def _all_counts(self, pot: _Pot) -> bool:
        """Whether nothing of a rate comes back: unlike tokens, a request that is under way is one in the end, too."""
        used = pot.spent + pot.busy + self._spent.get(pot.account, 0)
        return (pot.limit.what, pot.limit.per) == ("requests", "minute") and used >= pot.limit.most


def _uncountable() -> ApiError:
    return ApiError(
        503, "What this key has used cannot be counted now; try again", type=SERVER, code="budget_unavailable",
        retry_after=2,
    )  # fmt: skip


def _heard(asking: asyncio.Task[None]) -> None:
    """Whoever asked may have left."""
    if not asking.cancelled():
        asking.exception()
