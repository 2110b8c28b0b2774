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


@dataclass(frozen=True, slots=True)
class Judgment:
    """What the gates said of a model: in which release, the report, and whether all held; ``seq`` is its row."""

    model: str
    release: str
    report: str
    passed: bool
    gates: dict[str, bool]
    time: str
    seq: int


def judged(ledger: Ledger, model: str) -> Judgment | None:
    """The latest judgment on a model; None before the first."""
    for row in ledger.rows_back("gate"):
        body = row.body
        if body["model"] == model:
            gates = body["gates"]
            return Judgment(model, body["release"], body["report"], body["passed"], gates, row.time, row.seq)
    return None


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's word on a version, as it was judged in ``report``. ``note`` names the stored text of their reason."""

    ref: str
    decision: Literal["approve", "reject"]
    actor: str
    note: str | None
    time: str
    report: str | None = None


class Approvals:
    """Records and counts approvals; a later word of the same person replaces the earlier one."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def record(
        self,
        ref: str,
        decision: Literal["approve", "reject"],
        actor: str,
        note: str | None,
        report: str | None = None,
    ) -> None:
        """Write a decision down; it survives a loss of power once this returns. ``report`` is the judgment it is
        about."""
        body = {"ref": ref, "decision": decision, "actor": actor, "note": note, "report": report}
        self._ledger.append(Fact("approval", body), sync=True)

    def of(self, ref: str, report: str | None = None) -> list[Approval]:
        """The word of each person on a version, in the order of their last decision; with ``report``, only what was
        said of that judgment, and refusals, which stand until taken back."""
        latest: dict[str, Approval] = {}
        for row in self._ledger.rows("approval"):
            body = row.body
            if body["ref"] == ref:
                latest.pop(body["actor"], None)
                word = (body["decision"], body["actor"], body["note"], row.time, body.get("report"))
                latest[body["actor"]] = Approval(ref, *word)
        return [
            word for word in latest.values() if report is None or word.decision == "reject" or word.report == report
        ]

    def rejected(self, ref: str) -> bool:
        """Whether somebody refuses the version."""
        return any(word.decision == "reject" for word in self.of(ref))

    def granted(self, ref: str, needed: int, report: str) -> bool:
        """Whether enough different people approved this judgment and nobody refuses the version."""
        if self.rejected(ref):
            return False
        return len(self.of(ref, report)) >= needed
