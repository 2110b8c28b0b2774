"""What becomes of a judged version: promoted, tried on a share of the traffic, waiting for a word, refused, taken back.

Each decision is one row of the ledger with its reason, and asking again with nothing changed writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from treadle.core.errors import UserError
from treadle.core.identifiers import new_id
from treadle.core.ledger import Fact
from treadle.record.canary import Canary, CanarySettings
from treadle.record.gate import Judgment, judged
from treadle.record.note import keep_note
from treadle.record.record import Record
from treadle.record.version import Version
from treadle.stages.govern import GovernSettings
from treadle.stages.govern.canary import Verdict, look

NEEDED = {"none": 0, "one": 1, "two": 2}
Decision = Literal["promoted", "unchanged", "waiting", "canary", "refused"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How a version gets into force. ``ask``: a person agrees before a champion is replaced; ``canary``: how it is
    tried first, where a server runs (``serving``)."""

    govern: GovernSettings
    ask: bool = False
    canary: CanarySettings | None = None
    serving: bool = False

    def needed(self, *, replaces: bool) -> int:
        """How many people must agree."""
        return max(NEEDED[self.govern.approval], 1 if self.ask and replaces else 0)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The decision on a version, with the reason as people read it."""

    decision: Decision
    reason: str

    def line(self, version: Version) -> str:
        """One line for a person."""
        what = {
            "promoted": f"@champion = v{version.number}",
            "unchanged": f"@champion is v{version.number} already",
            "waiting": f"{version.ref} waits for approval: treadle approve {version.short}",
            "canary": f"{version.ref} is being tried",
            "refused": f"{version.ref} is not promoted",
        }[self.decision]
        return f"{what}: {self.reason}" if self.reason else what


def conclude(record: Record, policy: Policy, version: Version, *, now: datetime | None = None) -> Conclusion:
    """Take the next step with a judged version, or none; safe to ask again at any time, also after a crash."""
    judgment = judged(record.ledger, version.digest)
    if judgment is None:
        raise UserError(f"{version.ref} has not been through the gates; run: treadle run --until govern")
    champion = record.versions.alias("model", "champion")
    served = record.versions.served() if champion else None
    if champion == version and served == judgment.release:
        said = _no(judgment)
        return Conclusion(
            "unchanged", f"{said}; it stays champion until treadle rollback takes it back" if said else ""
        )
    refusal = _refusal(record, version, judgment)
    if refusal:
        _refuse(record, version, judgment, refusal)
        return Conclusion("refused", refusal)
    needed = policy.needed(replaces=champion is not None)
    if not record.approvals.granted(version.ref, needed, judgment.report):
        given = len(record.approvals.of(version.ref, judgment.report))
        return Conclusion("waiting", f"{given} of {needed} agreed so far")
    if policy.canary is None or served is None or not record.store.has(served):
        return _promote(record, version, judgment, "gates held", ())
    return _try_out(record, policy, policy.canary, version, judgment, served, now or datetime.now(UTC))


def _refusal(record: Record, version: Version, judgment: Judgment) -> str:
    """Why it may not be promoted; empty when nothing stands against it."""
    if not judgment.passed:
        return _no(judgment)
    if record.approvals.rejected(version.ref):
        return "a person refused it"
    taken = record.versions.taken_back(version)
    if taken is not None:
        later = [word for word in record.approvals.of(version.ref, judgment.report) if word.time > taken.time]
        if not any(word.decision == "approve" for word in later):
            return f"it was taken back (ledger row {taken.seq}); treadle approve {version.short} lets it try again"
    return ""


def _no(judgment: Judgment) -> str:
    """Which gates said no; empty when none did."""
    refused = [name for name, passed in judgment.gates.items() if not passed]
    return f"gates said no: {', '.join(refused)}" if refused else ""


def _refuse(record: Record, version: Version, judgment: Judgment, reason: str) -> None:
    body = {
        "model": version.digest,
        "number": version.number,
        "release": judgment.release,
        "report": judgment.report,
        "reason": reason,
    }
    last = record.ledger.last("refusal")
    if last is None or last.body != body:
        record.ledger.append(Fact("refusal", body), sync=True)
    canary = record.canaries.open()
    if canary is not None and canary.release == judgment.release:
        ending = record.canaries.decided(canary.id, "take_back", reason, {}, version.number)
        record.ledger.append(ending, sync=True)


def _promote(
    record: Record, version: Version, judgment: Judgment, reason: str, together: tuple[Fact, ...], **facts: Any
) -> Conclusion:
    named = {"release": judgment.release, "gates": judgment.report, **facts}
    record.versions.point("champion", version, reason=reason, together=together, **named)
    return Conclusion("promoted", reason)


def _try_out(
    record: Record,
    policy: Policy,
    settings: CanarySettings,
    version: Version,
    judgment: Judgment,
    champion: str,
    now: datetime,
) -> Conclusion:
    """A share of the traffic first. Where there is none, what the gates compared decides, and it is said."""
    canary = record.canaries.open()
    if canary is not None and (canary.release, canary.champion) != (judgment.release, champion):
        why = "another candidate took its place" if canary.champion == champion else "the champion changed meanwhile"
        record.ledger.append(record.canaries.decided(canary.id, "take_back", why, {}), sync=True)
        canary = None
    if canary is None:
        if not policy.serving:
            return _promote(record, version, judgment, "gates held; no server runs, so there was no traffic to try", ())
        record.canaries.begin(new_id("can"), judgment.release, version.digest, champion, settings.steps[0])
        record.versions.point("challenger", version, reason="canary", release=judgment.release)
        return Conclusion("canary", f"{settings.steps[0]:.0%} of the traffic")
    if any(alert.kind == "deploy" and alert.release == canary.release for alert in record.alerts.open()):
        verdict = Verdict("take_back", "the server could not open it", {})
    else:
        rows = record.recorder.interactions_since(canary.begun)
        verdict = look(settings, canary, rows, record.recorder.all_feedback(), now)
    return _follow(record, settings, version, judgment, canary, verdict)


def _follow(
    record: Record,
    settings: CanarySettings,
    version: Version,
    judgment: Judgment,
    canary: Canary,
    verdict: Verdict,
) -> Conclusion:
    if verdict.action == "wait":
        return Conclusion("canary", verdict.reason)
    if verdict.action == "widen":
        share = next(share for share in settings.steps if share > canary.share)
        record.canaries.widen(canary.id, share, verdict.figures)
        return Conclusion("canary", f"{verdict.reason}; {share:.0%} of the traffic from now on")
    if verdict.action == "take_back":
        ending = record.canaries.decided(canary.id, "take_back", verdict.reason, verdict.figures, version.number)
        record.versions.point("challenger", None, reason="taken back", together=(ending,))
        return Conclusion("refused", "taken back: " + verdict.reason)
    reason = verdict.reason
    if verdict.action == "undecided":
        reason += "; decided by the gates' comparison before, no guard is worse"
    ending = record.canaries.decided(canary.id, "promote", reason, verdict.figures)
    return _promote(record, version, judgment, reason, (ending,), canary=canary.id)


@dataclass(frozen=True, slots=True)
class RolledBack:
    """``what`` is ``canary`` or ``champion``; ``version`` was taken back, ``now`` is in force."""

    what: Literal["canary", "champion"]
    version: str
    now: str

    def public(self) -> dict[str, str]:
        """As JSON."""
        return {"what": self.what, "taken_back": self.version, "champion": self.now}


def roll_back(record: Record, why: str | None) -> RolledBack:
    """Take back what is new: the canary where there is one, else the champion for the one before it.

    Takes no lock, so that it works while a turn runs; servers that follow the record switch within a second.
    """
    champion = record.versions.alias("model", "champion")
    if champion is None:
        raise UserError("there is no champion to take back; treadle status shows where everything stands")
    note = keep_note(record.store, why)
    canary = record.canaries.open()
    if canary is not None:
        tried = record.versions.find("model", canary.model)
        number = tried.number if tried else None
        ending = record.canaries.decided(canary.id, "take_back", "a person took it back", {"note": note}, number)
        record.versions.point("challenger", None, reason="taken back", together=(ending,), note=note)
        return RolledBack("canary", tried.ref if tried else canary.model, champion.ref)
    before = _former(record, champion)
    if before is None:
        raise UserError(f"there is no release before {champion.ref} to go back to")
    release = record.versions.served_as(before)
    facts: dict[str, Any] = {"release": release, "taken_back": champion.number, "note": note}
    record.versions.point("champion", before, reason=f"took back v{champion.number}", **facts)
    return RolledBack("champion", champion.ref, before.ref)


def _former(record: Record, champion: Version) -> Version | None:
    """The latest champion before that was not itself taken back as such and whose release is still there."""
    known = {version.number: version for version in record.versions.all("model")}
    for move in reversed(record.versions.history("champion")):
        version = known.get(move["version"])
        if version is None or version == champion or record.versions.taken_back(version, canaries=False):
            continue
        release = record.versions.served_as(version)
        if release and record.store.has(release):
            return version
    return None
