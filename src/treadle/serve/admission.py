"""How many requests may be held at once: as many as are answered in time, found out by measuring.

An engine that works on many requests at a time gets slower for all of them with each one more, so whoever lets in
everybody is in time for nobody. Here the limit is the number in flight: it rises by one in a round of requests while
answers come well within the objective and the limit is what keeps others out, and falls by a quarter when more of them
than chance explains come late (additive increase, multiplicative decrease; Chiu and Jain 1989). A burst may go beyond
it by half for as long as what was answered lately was so quick that all of these would be in time as well. What is
beyond that is refused at once, before any work was done for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treadle.record.slo import Slo

_FIRST = 8.0  # requests in flight before anything was measured
_LEAST = 1.0
_EASY, _LATE = 0.6, 0.85  # parts of what the objective allows: below the one there is room, above the other none
_FALL = 0.75
_CHANCE = 1 / 19  # a late answer weighs as much as so many in time: one in twenty may be late
_TOO_MANY = 2.0
_BURST = 1.5
_LATELY = 0.1  # weight of an answer in what is usual


class Admission:
    """The limit of one gateway. Without an objective it stays at ``most``."""

    def __init__(self, most: int, slo: Slo | None = None) -> None:
        self._most = most
        self._slo = slo if slo is not None and slo.given() else None
        self._limit = float(most) if self._slo is None else min(_FIRST, most)
        self._late = 0.0
        self._changed = 0.0  # when the limit fell; who arrived before then says nothing of it
        self._tokens = 0.0  # of an answer, on average
        self._each = 0.0  # of what the objective allows, what one in flight takes from an answer, on average

    @property
    def limit(self) -> int:
        """Requests that may be in flight."""
        burst = min(self._limit * _BURST, _EASY / self._each, self._most) if self._each else 0.0
        return int(max(self._limit, burst))

    def answered(self, arrived: float, ended: float, first: float | None, tokens: int, in_flight: int) -> None:
        """Learn from an answer: when it arrived, ended and gave its first token (seconds, on one clock), its tokens,
        and how many were in flight with it."""
        if self._slo is None or arrived < self._changed:
            return
        ttft, total = (ended if first is None else first) - arrived, ended - arrived
        excess = self._excess(self._slo, ttft, total, tokens)
        each = excess / max(in_flight, 1)
        self._each += (each - self._each) * _LATELY if self._each else each
        if excess > _LATE:
            self._late += 1
            if self._late >= _TOO_MANY:
                self._limit = max(_LEAST, min(self._limit, max(in_flight, _LEAST)) * _FALL)
                self._changed, self._late = ended, 0.0
            return
        self._late = max(0.0, self._late - _CHANCE)
        if excess < _EASY and in_flight >= int(self._limit):
            # Until it was too many for the first time, by half in a round: a large machine is not to take for ever.
            self._limit = min(self._most, self._limit + (1 / self._limit if self._changed else 0.5))

    def _excess(self, slo: Slo, ttft: float, total: float, tokens: int) -> float:
        """As of an answer of usual length: a long one takes long on an idle server too, and is no sign of load."""
        self._tokens += (tokens - self._tokens) * _LATELY if self._tokens else tokens
        if tokens > self._tokens:
            total = ttft + (total - ttft) / tokens * self._tokens
        return slo.excess(ttft, total, tokens)
