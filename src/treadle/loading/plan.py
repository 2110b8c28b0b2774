"""How many replicas a trace needs for an objective: a simulation of each, by the speed that was measured.

A replica works on all its requests at once and is the slower for each the more there are; a new request goes where the
fewest are. What it leaves out: prefixes that are cached, requests that are refused, replicas that start or die, and the
network between. So a plan is checked with a real replay of one replica's part.

More traffic than one balancer oversees is dealt to cells: each has replicas of its own and the same part of everything.
One cell is simulated, with minutes of traffic, where ten thousand requests a second could be followed for seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import ceil
from typing import Any

from treadle.core.errors import UserError
from treadle.loading.curve import Curve
from treadle.loading.outcome import spread
from treadle.loading.trace import Arrival, busier
from treadle.record.slo import Slo

_MOST_REPLICAS = 4096  # of a cell
_CELL = 200_000  # requests
_HOPELESS = 400  # requests at once in a replica: it will never catch up


@dataclass(frozen=True, slots=True)
class _Ended:
    """An answer, and when its first and its last token came."""

    arrival: Arrival
    first: float
    last: float


class _Replica:
    """Its requests. How many they are sets the pace of all, so two clocks do for them: one counts usual prompts read,
    the other tokens written. A request is through with its prompt, and with its answer, at a time of its own on each.
    """

    def __init__(self, curve: Curve, number: int) -> None:
        self.number = number
        self.ends = float("inf")  # when something is next through, if nothing comes
        self._curve = curve
        self._now = self._read = self._written = 0.0
        self._reading: list[tuple[float, int, Arrival]] = []
        self._writing: list[tuple[float, int, Arrival, float]] = []

    def __len__(self) -> int:
        return len(self._reading) + len(self._writing)

    def add(self, arrival: Arrival, order: int) -> None:
        """A request that comes now."""
        self._go_on(arrival.at)
        heappush(self._reading, (self._read + self._curve.prompts(arrival.prompt), order, arrival))
        self._look()

    def go_on(self) -> _Ended | None:
        """Go on to ``ends``: the answer that is whole then, None where it was a prompt that was read."""
        self._go_on(self.ends)
        ended = None
        if self._reading and self._until_read() <= self._until_written():
            _, order, arrival = heappop(self._reading)
            if arrival.answer > 1:
                heappush(self._writing, (self._written + arrival.answer - 1, order, arrival, self._now))
            else:
                ended = _Ended(arrival, self._now, self._now)
        else:
            _, _, arrival, first = heappop(self._writing)
            ended = _Ended(arrival, first, self._now)
        self._look()
        return ended

    def _go_on(self, time: float) -> None:
        prefill, apart = self._curve.paces(len(self))
        self._read += (time - self._now) / prefill
        self._written += (time - self._now) / apart
        self._now = time

    def _until_read(self) -> float:
        return (self._reading[0][0] - self._read) * self._curve.paces(len(self))[0] if self._reading else float("inf")

    def _until_written(self) -> float:
        return (
            (self._writing[0][0] - self._written) * self._curve.paces(len(self))[1] if self._writing else float("inf")
        )

    def _look(self) -> None:
        self.ends = self._now + max(0.0, min(self._until_read(), self._until_written()))


class _Group:
    """Replicas by who is next through with something, and by who has the fewest requests. What no longer holds stays
    in both lists until it comes up."""

    def __init__(self, curve: Curve, replicas: int) -> None:
        self._all = [_Replica(curve, number) for number in range(replicas)]
        self._next: list[tuple[float, int]] = []
        self._fewest = [(0, number) for number in range(replicas)]

    def ended_by(self, time: float) -> Iterator[_Ended]:
        """What is answered until then, in order."""
        while self._next and self._next[0][0] <= time:
            ends, number = heappop(self._next)
            replica = self._all[number]
            if replica.ends == ends and len(replica):
                ended = replica.go_on()
                self._put(replica)
                if ended is not None:
                    yield ended

    def add(self, arrival: Arrival, order: int) -> bool:
        """To the one that has the fewest; False where even that one is hopelessly behind."""
        while len(self._all[self._fewest[0][1]]) != self._fewest[0][0]:
            heappop(self._fewest)
        replica = self._all[self._fewest[0][1]]
        if len(replica) >= _HOPELESS:
            return False
        replica.add(arrival, order)
        self._put(replica)
        return True

    def _put(self, replica: _Replica) -> None:
        heappush(self._next, (replica.ends, replica.number))
        heappush(self._fewest, (len(replica), replica.number))


def simulate(
    curve: Curve, arrivals: Sequence[Arrival], replicas: int, slo: Slo, *, enough: float = 0.0
) -> dict[str, Any]:
    """What ``replicas`` would make of the trace: percentiles in seconds, and the share that keeps the objective.

    Ends early, without percentiles, once that share can no longer be ``enough``.
    """
    group = _Group(curve, replicas)
    ttft: list[float] = []
    total: list[float] = []
    missed = 0
    may_miss = (1 - enough) * len(arrivals) + 1e-9

    def count(until: float) -> bool:
        nonlocal missed
        for ended in group.ended_by(until):
            ttft.append(ended.first - ended.arrival.at)
            total.append(ended.last - ended.arrival.at)
            missed += slo.excess(ttft[-1], total[-1], ended.arrival.answer) > 1
        return missed <= may_miss

    for order, arrival in enumerate(arrivals):
        if not count(arrival.at) or not group.add(arrival, order):
            return {"replicas": replicas, "ttft": None, "total": None, "share": 0.0}
    if not count(float("inf")):
        return {"replicas": replicas, "ttft": None, "total": None, "share": 0.0}
    share = round(1 - missed / len(arrivals), 5)
    return {"replicas": replicas, "ttft": spread(ttft), "total": spread(total), "share": share}


@dataclass(frozen=True)
class Plan:
    """``cells`` alike, each with ``arrivals`` and with what ``simulated`` says of them."""

    cells: int
    arrivals: list[Arrival]
    simulated: dict[str, Any]

    @property
    def replicas(self) -> int:
        """Of all cells."""
        found: int = self.cells * self.simulated["replicas"]
        return found

    def one_replica(self) -> list[Arrival]:
        """What one of a cell's replicas gets, when they take turns."""
        return self.arrivals[:: self.simulated["replicas"]]

    def public(self) -> dict[str, Any]:
        """As JSON."""
        rate = self.cells * len(self.arrivals) / max(self.arrivals[-1].at, 1.0)
        return self.simulated | {
            "replicas": self.replicas,
            "cells": self.cells,
            "requests_per_second": round(rate, 3),
        }


def plan(curve: Curve, arrivals: Sequence[Arrival], slo: Slo, at_least: float, *, times: float = 1.0) -> Plan:
    """The fewest replicas by which ``at_least`` of the requests, ``times`` as many as these, keep the objective.

    Raises ``UserError`` when no number does.
    """
    cells = max(1, ceil(len(arrivals) * times / _CELL))
    part = busier(arrivals, times / cells)
    low, high = 0, 1
    while (found := simulate(curve, part, high, slo, enough=at_least))["share"] < at_least:
        if high >= min(_MOST_REPLICAS, len(part)):
            best = simulate(curve, part, high, slo)["share"]
            raise UserError(
                f"no number of replicas keeps {slo.given()} for {at_least:.0%} of these requests; at best"
                f" {best:.1%}: a faster machine, shorter answers (--answer-tokens), or a wider objective"
            )
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        tried = simulate(curve, part, middle, slo, enough=at_least)
        if tried["share"] >= at_least:
            high, found = middle, tried
        else:
            low = middle
    return Plan(cells, part, found)
