"""A person's word on a version: what waits for it, and what follows from it.

A word is about one judgment and one champion, as they were seen. When either changed between the look and the word,
nothing is written and the person looks again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from treadle.core.errors import UserError
from treadle.cycle import policy_of
from treadle.project import Project
from treadle.record.gate import Judgment, judged
from treadle.record.note import keep_note
from treadle.record.version import Version
from treadle.stages.govern.promotion import conclude


class Changed(UserError):
    """What was looked at is no longer what is decided on."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a person had before them: the judgment's report, and the champion that would be replaced."""

    report: str
    champion: str | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A version that waits for ``needed`` people, ``given`` of whom agreed."""

    version: Version
    judgment: Judgment
    champion: Version | None
    given: int
    needed: int

    @property
    def seen(self) -> Seen:
        """What whoever looks now sees."""
        return Seen(self.judgment.report, self.champion.digest if self.champion else None)

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "ref": self.version.ref,
            "digest": self.version.digest,
            "champion": self.champion.ref if self.champion else None,
            "given": self.given,
            "needed": self.needed,
            "gates": self.judgment.gates,
            "seen": asdict(self.seen),
        }


@dataclass(frozen=True, slots=True)
class Decided:
    """What a word led to; ``outcome`` as a ``Conclusion`` has it."""

    ref: str
    decision: Literal["approve", "reject"]
    outcome: str
    reason: str

    def public(self) -> dict[str, str]:
        """As JSON."""
        return asdict(self)


def waiting(project: Project) -> list[Waiting]:
    """Versions that passed their gates and lack a person's word, newest first; only the latest of them can be
    promoted by the ordinary cycle, so older ones that were passed over are left out."""
    record = project.record
    champion = record.versions.alias("model", "champion")
    found = []
    for version in reversed(record.versions.all("model")):
        judgment = judged(record.ledger, version.digest)
        if version == champion or judgment is None:
            break
        needed = policy_of(project).needed(replaces=champion is not None)
        given = len(record.approvals.of(version.ref, judgment.report))
        stands = judgment.passed and not record.approvals.rejected(version.ref)
        if stands and given < needed and record.store.has(judgment.release):
            found.append(Waiting(version, judgment, champion, given, needed))
    return found


def decide(
    project: Project,
    ref: str,
    decision: Literal["approve", "reject"],
    reason: str | None,
    *,
    actor: str,
    seen: Seen | None = None,
) -> Decided:
    """Record a word and do what follows from it. The caller holds the project's lock.

    ``actor`` is a keyed digest. Raises ``Changed`` when ``seen`` is no longer so, ``UserError`` for what is no model
    version or was never judged.
    """
    record = project.record
    version = record.versions.resolve(ref)
    if version is None or version.kind != "model":
        raise UserError(f"{ref!r} is no model version; expected model@v2 or @challenger")
    judgment = judged(record.ledger, version.digest)
    if judgment is None:
        raise UserError(f"{version.ref} has not been through the gates; run: treadle run --until govern")
    champion = record.versions.alias("model", "champion")
    if seen is not None and seen.report != judgment.report:
        raise Changed(f"{version.ref} was judged again since you looked; look at it once more")
    if seen is not None and champion != version and seen.champion != (champion.digest if champion else None):
        name = champion.ref if champion else "none"
        raise Changed(f"the champion is {name} now, not the one you compared with; look once more")
    same = [word for word in record.approvals.of(version.ref) if word.actor == actor]
    if not same or same[-1].decision != decision or same[-1].report != judgment.report or _again(record, version):
        record.approvals.record(version.ref, decision, actor, keep_note(record.store, reason), judgment.report)
    outcome = conclude(record, policy_of(project), version)
    return Decided(version.ref, decision, outcome.decision, outcome.reason)


def _again(record: Any, version: Version) -> bool:
    """Whether a word is a new one although it says the same: the version was taken back since."""
    return record.versions.taken_back(version) is not None
