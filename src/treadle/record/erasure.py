"""Erasure: a person's documents leave every artifact, and the list that keeps them out is an input of every collection.

The list holds keyed digests only. An erasure is ``requested`` (the list grows), then ``done`` (rebuilt without the
person, old objects deleted); a request that was interrupted stands until it is done.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from treadle.core.artifacts import Builder
from treadle.core.keys import Keys
from treadle.core.ledger import Fact, Ledger
from treadle.core.store import Store
from treadle.record import erasure_list
from treadle.record.suppression import SuppressionList

FORMAT = 1
COUNTED = ("documents", "interactions", "feedback")  # facts of the phase ``requested``


@dataclass(frozen=True, slots=True)
class Erasure:
    """One request: whom (by a keyed digest under a key that the erasure destroys), how far it is."""

    request: str
    subject: str
    phase: str
    suppression: str
    time: str


class Erasures:
    """Records erasures and finds the list in force."""

    def __init__(self, ledger: Ledger, store: Store, keys: Keys) -> None:
        self._ledger = ledger
        self._store = store
        self._keys = keys

    def suppression(self) -> SuppressionList | None:
        """The list in force; None before the first erasure."""
        row = self._ledger.last("erasure")
        return SuppressionList(row.body["suppression"], self._store) if row else None

    def listed_before(self, request: str) -> dict[str, int]:
        """The entries of the list that was in force before a request, or is where there is no such request."""
        before = None
        for row in self._ledger.rows("erasure"):
            if row.body["request"] == request:
                break
            before = row.body["suppression"]
        return SuppressionList(before, self._store).suppressed() if before else {}

    def extend(self, entries: dict[str, int]) -> SuppressionList:
        """A list with these entries as well; not in force before a row names it."""
        present = self.suppression()
        merged = {**(present.suppressed() if present else {}), **entries}
        with Builder(SuppressionList, self._store) as builder:
            data = json.dumps({"format": FORMAT, "entries": dict(sorted(merged.items()))}, indent=1)
            (builder.path / "entries.json").write_text(data)
            return builder.commit()

    def record(self, request: str, subject: str, phase: str, suppression: str, **facts: Any) -> None:
        """Write a phase down; it survives a loss of power once this returns."""
        body = {"request": request, "subject": subject, "phase": phase, "suppression": suppression, "objects": []}
        self._ledger.append(Fact("erasure", body | facts), sync=True)
        erasure_list.keep(self._ledger.rows(*erasure_list.KINDS), self._store, self._keys)

    def counted(self, request: str) -> Counter[str]:
        """What was found for a request, by what it is: the most of its attempts, since each leaves less to the next."""
        most: Counter[str] = Counter()
        for row in self._ledger.rows("erasure"):
            if row.body["request"] == request:
                most |= Counter({name: row.body.get(name, 0) for name in COUNTED})
        return most

    def open(self) -> list[Erasure]:
        """Requests that are not done yet."""
        standing: dict[str, Erasure] = {}
        for row in self._ledger.rows("erasure"):
            body = row.body
            if body["phase"] == "done":
                standing.pop(body["request"], None)
            else:
                standing[body["request"]] = Erasure(
                    body["request"], body["subject"], body["phase"], body["suppression"], row.time
                )
        return list(standing.values())
