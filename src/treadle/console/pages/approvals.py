"""``/approvals``: what waits for a person; ``/approvals/N``: the evidence on one version, and a word on it.

``?format=json`` gives an `ApprovalsPage` and an `ApprovalPage`. A form carries what was seen, so that nobody decides on
something else than they looked at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from treadle.approving import Seen, Waiting
from treadle.approving import decide as decide_on
from treadle.approving import waiting as waiting_for
from treadle.console.charts import Whisker, whisker
from treadle.console.problem import Problem
from treadle.console.visit import Page, Redirect, Visit
from treadle.core.errors import UserError
from treadle.record.canary import Canary
from treadle.record.gate import Approval, Judgment, judged
from treadle.record.note import read_note
from treadle.record.record import Record
from treadle.record.report import Report
from treadle.record.version import Version
from treadle.reviewing import cleaned

MAX_REASON = 2_000  # characters
_RECENT = 20  # decisions
_DECISIONS: tuple[Literal["", "approve", "reject"], ...] = ("", "approve", "reject")


@dataclass(frozen=True, slots=True)
class WaitingVersion:
    """A version that lacks a person's word: ``given`` of ``needed`` people agreed."""

    number: int
    ref: str
    digest: str
    champion: str | None
    judged: str
    gates: int
    given: int
    needed: int


@dataclass(frozen=True, slots=True)
class Word:
    """What a person said: ``actor`` is a keyed digest."""

    ref: str
    decision: str
    actor: str
    time: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class ApprovalsPage:
    """What waits, and what was decided lately."""

    waiting: tuple[WaitingVersion, ...]
    decided: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Gate:
    """One rule and what it found; ``drawn`` is its interval, where it compared two models."""

    gate: str
    passed: bool
    detail: str
    figures: dict[str, Any]
    drawn: Whisker | None


@dataclass(frozen=True, slots=True)
class ApprovalPage:
    """The evidence on one version. ``state`` is waiting, champion, canary, refused or passed over; ``seen`` is what a
    decision has to carry."""

    number: int
    ref: str
    digest: str
    state: str
    champion: str | None
    given: int
    needed: int
    judged: str
    seen: Seen
    gates: tuple[Gate, ...]
    card: str | None
    canary: Canary | None
    words: tuple[Word, ...]


def approvals(visit: Visit) -> Page:
    """The list."""
    rows = tuple(_waiting_version(each) for each in waiting_for(visit.project))
    page = ApprovalsPage(rows, _recent(visit.record))
    return Page("approvals.html", "Approvals", "approvals", page)


def approval(visit: Visit) -> Page:
    """One version."""
    record = visit.record
    version, judgment = _judged(record, int(visit.path["number"]))
    champion = record.versions.alias("model", "champion")
    waits = next((each for each in waiting_for(visit.project) if each.version == version), None)
    canary = record.canaries.open()
    canary = canary if canary is not None and canary.model == version.digest else None
    gates = _gates(record, judgment)
    words = tuple(_word(record, each) for each in record.approvals.of(version.ref))
    view = ApprovalPage(
        version.number,
        version.ref,
        version.digest,
        _state(record, version, champion, waits, canary),
        champion.ref if champion else None,
        waits.given if waits else 0,
        waits.needed if waits else 0,
        judgment.time,
        Seen(judgment.report, champion.digest if champion else None),
        gates,
        _card(record, judgment),
        canary,
        words,
    )
    return Page("approval.html", f"Approve {version.short}?", "approvals", view)


def decide(visit: Visit) -> Redirect:
    """Take a person's word; needs the project's lock for a moment."""
    version, _ = _judged(visit.record, int(visit.path["number"]))
    form = visit.form
    decision = form.choice("decision", _DECISIONS, "")
    if not decision:
        raise Problem(400, "Undecided", "Say whether you approve or refuse.", back=f"/approvals/{version.number}")
    reason = form.text("reason", most=MAX_REASON)
    if decision == "reject" and not reason:
        raise UserError("a refusal needs a reason, for whoever works on the next version")
    seen = Seen(form.text("report", most=100), form.text("champion", most=100) or None)
    note = cleaned(visit.project, reason) if reason else None
    with visit.house.changing():
        done = decide_on(visit.project, version.ref, decision, note, actor=visit.session.person.actor, seen=seen)
    visit.house.written()
    said = {
        "promoted": f"{version.short} is the champion now: it answers your users.",
        "unchanged": f"{version.short} is the champion already; your word is recorded.",
        "waiting": f"Your word is recorded; {version.short} waits for one more person.",
        "canary": f"Your word is recorded; {version.short} is tried on a share of the traffic first.",
        "refused": f"{version.short} is refused: {done.reason}.",
    }.get(done.outcome, f"{version.short}: {done.outcome}.")
    return Redirect("/approvals", said, done)


def _judged(record: Record, number: int) -> tuple[Version, Judgment]:
    version = next((each for each in record.versions.all("model") if each.number == number), None)
    if version is None:
        raise Problem(404, "No such version", f"There is no model@v{number}.", back="/approvals")
    judgment = judged(record.ledger, version.digest)
    if judgment is None:
        said = f"{version.short} has not been through the gates, so there is nothing to decide yet."
        raise Problem(404, "Not judged", said, "A turn brings it there: treadle run --until govern.", "/approvals")
    return version, judgment


def _waiting_version(each: Waiting) -> WaitingVersion:
    return WaitingVersion(
        each.version.number,
        each.version.ref,
        each.version.digest,
        each.champion.ref if each.champion else None,
        each.judgment.time,
        len(each.judgment.gates),
        each.given,
        each.needed,
    )


def _state(
    record: Record, version: Version, champion: Version | None, waits: Waiting | None, canary: Canary | None
) -> str:
    if version == champion:
        return "champion"
    if canary is not None:
        return "canary"
    if waits is not None:
        return "waiting"
    judgment = judged(record.ledger, version.digest)
    refused = record.approvals.rejected(version.ref) or record.versions.taken_back(version) is not None
    return "refused" if refused or (judgment is not None and not judgment.passed) else "passed over"


def _gates(record: Record, judgment: Judgment) -> tuple[Gate, ...]:
    if not record.store.has(judgment.report):
        return tuple(Gate(name, passed, "the report was erased", {}, None) for name, passed in judgment.gates.items())
    results = Report(judgment.report, record.store).read_json("gates.json")
    return tuple(
        Gate(each["gate"], each["passed"], each["detail"], each["figures"], _drawn(each["figures"])) for each in results
    )


def _drawn(figures: dict[str, Any]) -> Whisker | None:
    parts = [figures.get(name) for name in ("difference", "low", "high")]
    numbers = [float(part) for part in parts if isinstance(part, int | float)]
    return whisker(*numbers) if len(numbers) == 3 else None


def _card(record: Record, judgment: Judgment) -> str | None:
    for run in record.runs.taking(judgment.report):
        for digest in run.outputs.values():
            report = Report(digest, record.store)
            if run.status == "done" and record.store.has(digest) and report.has("card.md"):
                with report.open("card.md") as file:
                    return file.read().decode("utf-8", "replace")
    return None


def _recent(record: Record) -> tuple[Word, ...]:
    sql = "SELECT body, time FROM ledger WHERE kind = 'approval' ORDER BY seq DESC LIMIT ?"
    found = []
    for body, time in record.workspace.database.query(sql, (_RECENT,)):
        said = _parsed(body)
        found.append(Word(said["ref"], said["decision"], said["actor"], time, read_note(record.store, said["note"])))
    return tuple(found)


def _word(record: Record, each: Approval) -> Word:
    return Word(each.ref, each.decision, each.actor, each.time, read_note(record.store, each.note))


def _parsed(body: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(body)
    return parsed
