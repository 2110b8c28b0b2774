"""A turn of the cycle: why it began, what it took besides the file, and what came of it.

Its inputs are fixed when it begins, so that a turn that was killed goes on as the same turn, and `treadle run` after
it finds every step remembered.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from treadle.core.ledger import Fact, Ledger, Row

Outcome = Literal["promoted", "unchanged", "waiting", "canary", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class TurnInputs:
    """What a turn takes besides the file, by digest: a corpus of corrections and test cases, the model that training
    starts from (None: the base), the dataset whose split it keeps to, so that nothing that was once a test is
    learned from later, and a model that is ready, so that nothing is trained."""

    feedback: str | None = None
    start: str | None = None
    split: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """``reasons`` in words, as the rules in the file gave them; ``until`` is the time up to which feedback was taken.

    ``outcome`` is None while it goes on; ``candidate`` names the version it made.
    """

    number: int
    reasons: tuple[str, ...]
    begun: str
    until: str
    inputs: TurnInputs = TurnInputs()
    ended: str | None = None
    outcome: Outcome | None = None
    detail: str = ""
    candidate: str | None = None

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "reasons": list(self.reasons)}


class Turns:
    """Begins and ends turns, one at a time."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._known: dict[int, TurnRecord] = {}  # as of the row that was seen last: rows never change
        self._seen = 0

    def begin(self, reasons: tuple[str, ...], inputs: TurnInputs, until: str) -> TurnRecord:
        """Write down that a turn begins; survives a loss of power once it returns."""
        number = max((turn.number for turn in self.all()), default=0) + 1
        body = {"number": number, "reasons": list(reasons), "until": until, **asdict(inputs)}
        row = self._ledger.append(Fact("turn.begun", body), sync=True)[0]
        return TurnRecord(number, reasons, row.time, until, inputs)

    def end(self, number: int, outcome: Outcome, detail: str, candidate: str | None) -> None:
        """Write down what came of it."""
        body = {"number": number, "outcome": outcome, "detail": detail, "candidate": candidate}
        self._ledger.append(Fact("turn.ended", body), sync=True)

    def change(self, number: int, inputs: TurnInputs) -> None:
        """Other inputs for a turn: an erasure took something out of them."""
        self._ledger.append(Fact("turn.changed", {"number": number, **asdict(inputs)}), sync=True)

    def all(self) -> list[TurnRecord]:
        """Every turn, oldest first."""
        with self._lock:
            for row in self._ledger.rows("turn.begun", "turn.changed", "turn.ended", after=self._seen):
                self._take(row)
                self._seen = row.seq
            return list(self._known.values())

    def _take(self, row: Row) -> None:
        body, known = row.body, self._known
        number = body["number"]
        if row.kind == "turn.ended":
            ending = {name: body[name] for name in ("outcome", "detail", "candidate")}
            known[number] = replace(known[number], ended=row.time, **ending)
            return
        inputs = TurnInputs(body["feedback"], body["start"], body["split"], body.get("model"))
        if row.kind == "turn.changed":
            known[number] = replace(known[number], inputs=inputs)
        else:
            known[number] = TurnRecord(number, tuple(body["reasons"]), row.time, body["until"], inputs)

    def latest(self) -> TurnRecord | None:
        """The last turn that began; None before the first."""
        return next(reversed(self.all()), None)

    def since(self) -> str:
        """The time up to which turns have taken feedback; empty before any did."""
        return max((turn.until for turn in self.all()), default="")

    def open(self) -> TurnRecord | None:
        """The turn that goes on, or was interrupted."""
        latest = self.latest()
        return latest if latest is not None and latest.ended is None else None
