"""How many replicas a trace needs for an objective: a simulation of each, by the speed that was measured.

A replica works on all its requests at once and is the slower for each the more there are; a new request goes where the
fewest are. What it leaves out: prefixes that are cached, requests that are refused, replicas that start or die, and the
network between. So a plan is checked with a real replay of one replica's part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from treadle.core.errors import UserError
from treadle.loading.curve import Curve
from treadle.loading.outcome import spread
from treadle.loading.trace import Arrival
from treadle.record.slo import Slo

_MOST_REPLICAS = 4096
_MOST_ARRIVALS = 200_000
_HOPELESS = 400  # requests at once in a replica: it will never catch up


@dataclass(slots=True, eq=False)
class _Work:
    """A request under way: ``prefill`` is the part of it that is left, ``tokens`` those after the first."""

    arrival: Arrival
    prefill: float = 1.0
    tokens: float = 0.0
    first: float = 0.0


class _Replica:
    """Its requests, as of ``now``."""

    def __init__(self, curve: Curve) -> None:
        self.at_work: list[_Work] = []
        self.now = 0.0
        self.ends = float("inf")
        self._curve = curve

    def run_to(self, time: float) -> list[_Work]:
        """Go on until ``time``; what has ended by then."""
        passed, self.now = time - self.now, time
        count = len(self.at_work)
        done = []
        for work in self.at_work:
            left = passed
            if work.prefill > 0:
                whole = self._curve.prefill(count, work.arrival.prompt)
                used = min(left, work.prefill * whole)
                work.prefill -= used / whole
                left -= used
                if work.prefill < 1e-9:
                    work.prefill, work.first = 0.0, time - left
            if not work.prefill:
                work.tokens -= left / self._curve.per_token(count)
                if work.tokens < 1e-6:
                    done.append(work)
        if done:
            self.at_work = [work for work in self.at_work if work not in done]
        self.look()
        return done

    def look(self) -> None:
        """When the next one ends, if none comes."""
        count = len(self.at_work)
        if not count:
            self.ends = float("inf")
            return
        apart, prefill = self._curve.per_token(count), self._curve.prefill
        self.ends = self.now + max(
            1e-9, min(w.prefill * prefill(count, w.arrival.prompt) + w.tokens * apart for w in self.at_work)
        )


def simulate(curve: Curve, arrivals: Sequence[Arrival], replicas: int, slo: Slo) -> dict[str, Any]:
    """What ``replicas`` would make of the trace: percentiles in seconds, and the share that keeps the objective."""
    group = [_Replica(curve) for _ in range(replicas)]
    ttft: list[float] = []
    total: list[float] = []
    met = 0

    def ended(replica: _Replica, time: float) -> None:
        nonlocal met
        for work in replica.run_to(time):
            ttft.append(work.first - work.arrival.at)
            total.append(time - work.arrival.at)
            met += slo.excess(ttft[-1], total[-1], work.arrival.answer) <= 1

    for arrival in arrivals:
        while (soonest := min(group, key=lambda each: each.ends)).ends <= arrival.at:
            ended(soonest, soonest.ends)
        chosen = min(group, key=lambda each: len(each.at_work))
        if len(chosen.at_work) >= _HOPELESS:
            return {"replicas": replicas, "ttft": None, "total": None, "share": 0.0}
        ended(chosen, arrival.at)
        chosen.at_work.append(_Work(arrival, tokens=max(arrival.answer - 1, 0)))
        chosen.look()
    while (soonest := min(group, key=lambda each: each.ends)).at_work:
        ended(soonest, soonest.ends)
    return {"replicas": replicas, "ttft": spread(ttft), "total": spread(total), "share": round(met / len(arrivals), 5)}


def plan(curve: Curve, arrivals: Sequence[Arrival], slo: Slo, at_least: float) -> dict[str, Any]:
    """The fewest replicas by which ``at_least`` of the requests keep the objective. ``UserError`` when none do."""
    if len(arrivals) > _MOST_ARRIVALS:
        raise UserError(f"{len(arrivals):,} requests; at most {_MOST_ARRIVALS:,} are simulated: make --for shorter")
    low, high = 0, 1
    while (found := simulate(curve, arrivals, high, slo))["share"] < at_least:
        if high >= min(_MOST_REPLICAS, len(arrivals)):
            raise UserError(
                f"no number of replicas keeps {slo.given()} for {at_least:.0%} of these requests; at best"
                f" {found['share']:.1%}: a faster machine, shorter answers (--answer-tokens), or a wider objective"
            )
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        tried = simulate(curve, arrivals, middle, slo)
        if tried["share"] >= at_least:
            high, found = middle, tried
        else:
            low = middle
    return found


def part_of(arrivals: Sequence[Arrival], replicas: int) -> list[Arrival]:
    """What one of so many replicas gets, when they take turns."""
    return list(arrivals[::replicas])
