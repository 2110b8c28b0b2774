"""Addresses of servers that all run one model: which of them a request goes to, and what became of it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from treadle.core.errors import UserError
from treadle.lm.breaker import Breaker, State
from treadle.lm.engine import EngineGone

logger = logging.getLogger("treadle.upstream")
Outcome = Literal["ok", "refused", "busy", "failed", "left"]
Code = Literal[
    "upstream_busy", "upstream_unavailable", "upstream_timeout", "upstream_garbled", "upstream_misconfigured"
]


class UpstreamError(EngineGone):
    """A server behind us did not answer as it should. ``retry_after``: seconds, where something is known."""

    def __init__(self, message: str, code: Code, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code: Code = code
        self.retry_after = retry_after


class TooLongError(UserError):
    """A server says that prompt and answer do not fit into its context."""


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """How an address stands: ``running`` requests, the breaker, and how often what came of a request."""

    place: str
    running: int
    breaker: State
    times_opened: int
    outcomes: dict[Outcome, int]


def upstreams_of(engine: object) -> list[UpstreamState]:
    """The servers that an engine asks; none of one that works here."""
    found: list[UpstreamState] = getattr(engine, "upstreams", list)()
    return found


class Address:
    """One server. ``place`` is its host and port, which may be told and recorded."""

    def __init__(self, url: str, breaker: Breaker, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self.place = urlsplit(url).netloc
        self.breaker = breaker
        self.running = 0
        self.outcomes: Counter[Outcome] = Counter()
        self._clock = clock
        self._busy_until = 0.0

    @property
    def seconds(self) -> float:
        """Until a request may go there; 0 where one may now."""
        return max(self.breaker.seconds, self._busy_until - self._clock())

    @property
    def is_busy(self) -> bool:
        """It asked to be left alone, and is well otherwise."""
        return self._busy_until > self._clock()

    def allows(self) -> bool:
        """Whether a request may go there now."""
        return not self.is_busy and self.breaker.allows()

    def state(self) -> UpstreamState:
        """For whoever watches."""
        return UpstreamState(
            self.place, self.running, self.breaker.state, self.breaker.times_opened, dict(self.outcomes)
        )

    @contextmanager
    def asked(self) -> Iterator[Attempt]:
        """One request to it: its place is held, and what came of it counted. Undecided where nobody says."""
        attempt = Attempt()
        self.breaker.begin()
        self.running += 1
        try:
            yield attempt
        except UpstreamError as error:
            attempt.outcome = "busy" if error.code == "upstream_busy" else "failed"
            if attempt.outcome == "busy":
                self._busy_until = self._clock() + (error.retry_after or 1.0)
            raise
        finally:
            self.running -= 1
            self._count(attempt.outcome)

    def _count(self, outcome: Outcome) -> None:
        self.outcomes[outcome] += 1
        breaker, before = self.breaker, (self.breaker.state, self.breaker.times_opened)
        if outcome == "failed":
            breaker.failed()
        elif outcome == "left":
            breaker.undecided()
        else:  # whoever refuses a request, or is busy, is alive
            breaker.succeeded()
        if breaker.times_opened != before[1]:
            logger.warning("upstream %s fails; it is left alone until a request may try it again", self.place)
        elif before[0] != "closed" and breaker.state == "closed":
            logger.warning("upstream %s answers again", self.place)


@dataclass(slots=True)
class Attempt:
    """What came of one request to an address."""

    outcome: Outcome = "left"


class Addresses:
    """All of them. ``round_robin`` goes through them in turn, else the one with the fewest requests under way is
    taken."""

    def __init__(self, addresses: Sequence[Address], *, round_robin: bool) -> None:
        self.all = list(addresses)
        self._round_robin = round_robin
        self._next = 0

    def take(self, tried: Collection[Address] = ()) -> Address:
        """The one for the next attempt: one that was not ``tried`` for this request, where there is one.

        Raises ``UpstreamError`` when nothing may be sent anywhere.
        """
        turned = self.all[self._next :] + self.all[: self._next]
        open_ones = [each for each in turned if each.allows()]
        if not open_ones:
            raise self._none()
        candidates = [each for each in open_ones if each not in tried] or open_ones
        taken = candidates[0] if self._round_robin else min(candidates, key=lambda each: each.running)
        self._next = (self.all.index(taken) + 1) % len(self.all)
        return taken

    def _none(self) -> UpstreamError:
        seconds = min(each.seconds for each in self.all)
        if any(each.is_busy and each.breaker.allows() for each in self.all):
            return UpstreamError("every upstream has all it can do", "upstream_busy", seconds)
        return UpstreamError("no upstream answers", "upstream_unavailable", seconds)
