"""A gate: a rule that must hold before a promotion, what it found, and a person's word where the file asks for one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from treadle.core.ledger import Fact, Ledger


@dataclass(frozen=True, slots=True)
class GateResult:
    """One rule applied to one candidate; ``detail`` is one line for people, ``figures`` the numbers behind it."""

    gate: str
    passed: bool
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def judged(ledger: Ledger, model: str) -> dict[str, Any] | None:
    """The latest judgment on a model: its release, whether it passed, and the report; None before the first."""
    found = None
    for row in ledger.rows("gate"):
        if row.body["model"] == model:
            found = row.body
    return found


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's word on a version. ``note`` names the stored text of their reason."""

    ref: str
    decision: Literal["approve", "reject"]
    actor: str
    note: str | None
    time: str


class Approvals:
    """Records and counts approvals; a later word of the same person replaces the earlier one."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def record(self, ref: str, decision: Literal["approve", "reject"], actor: str, note: str | None) -> None:
        """Write a decision down; it survives a loss of power once this returns."""
        body = {"ref": ref, "decision": decision, "actor": actor, "note": note}
        self._ledger.append(Fact("approval", body), sync=True)

    def of(self, ref: str) -> list[Approval]:
        """The word of each person on a version, in the order of their last decision."""
        latest: dict[str, Approval] = {}
        for row in self._ledger.rows("approval"):
            if row.body["ref"] == ref:
                body = row.body
                latest.pop(body["actor"], None)
                latest[body["actor"]] = Approval(ref, body["decision"], body["actor"], body["note"], row.time)
        return list(latest.values())

    def granted(self, ref: str, needed: int) -> bool:
        """Whether enough different people approved and nobody rejects."""
        words = self.of(ref)
        if any(word.decision == "reject" for word in words):
            return False
        return sum(word.decision == "approve" for word in words) >= needed
