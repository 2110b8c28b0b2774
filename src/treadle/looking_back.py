"""How things stood at a time, from the rows up to then: which version answered, with which settings, who approved it.

Nothing that was written later enters, whatever the version's fate was. Texts are shown as far as they are still stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, cast

from treadle.core.errors import UserError
from treadle.core.ledger import Ledger, Row
from treadle.project import Project
from treadle.record.canary import Canaries
from treadle.record.deployment import Deployments
from treadle.record.gate import Approvals, judged
from treadle.record.note import read_note
from treadle.record.record import Record
from treadle.record.release import Release


def moment(text: str) -> str:
    """A time as the ledger writes it, from ISO 8601; UTC unless it says otherwise, a date alone is its first moment."""
    try:
        found = datetime.fromisoformat(text)
        found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UserError(f"--at {text[:40]!r}: expected a time such as 2026-01-31 or 2026-01-31T12:00:00Z") from None
    return found.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def standing_at(project: Project, time: str) -> dict[str, Any]:
    """The shape that ``treadle status --at TIME --json`` promises; ``time`` as `moment` gives it."""
    record, ledger = project.record, cast("Ledger", _Until(project.record.ledger, time))
    wanted = {"of": "model", "alias": "champion", "name": record.versions.project}
    move = next((row for row in ledger.rows_back("alias") if wanted.items() <= row.body.items()), None)
    canaries = Canaries(ledger)
    canary = canaries.open()
    deployments = Deployments(ledger, record.versions, canaries).all()
    return {
        "project": project.file.name,
        "at": time,
        **_champion(record, ledger, move),
        "deployments": [asdict(each) for each in deployments],
        "canary": {"release": canary.release, "model": canary.model, "share": canary.share, "since": canary.begun}
        if canary
        else None,
    }


def _champion(record: Record, ledger: Ledger, move: Row | None) -> dict[str, Any]:
    """The version in force, and what was known of it."""
    nothing: dict[str, Any] = {"champion": None, "release": None, "training": None, "gates": None, "approvals": []}
    if move is None or move.body["number"] is None:
        return nothing
    body = move.body
    version = next(each for each in record.versions.all("model") if each.number == body["number"])
    release = body.get("release")
    made = record.runs.producer(version.digest)
    judgment = judged(ledger, version.digest)
    return {
        "champion": {
            "ref": version.ref,
            "number": version.number,
            "digest": version.digest,
            "since": move.time,
            "reason": body["reason"],
            "release": release,
            "row": move.seq,
        },
        "release": Release(release, record.store).read().to_json()
        if release and record.store.has_object(release)
        else None,
        "training": {"run": made.id, "step": made.step, "parameters": made.parameters} if made else None,
        "gates": {"passed": judgment.passed, "gates": judgment.gates, "time": judgment.time, "row": judgment.seq}
        if judgment
        else None,
        "approvals": [
            {
                "decision": word.decision,
                "actor": word.actor,
                "time": word.time,
                "note": read_note(record.store, word.note),
            }
            for word in Approvals(ledger).of(version.ref)
        ],
    }


class _Until:
    """The ledger as it was: rows of a later time are left out, wherever a clock that was put back has placed them."""

    def __init__(self, ledger: Ledger, time: str) -> None:
        self._ledger = ledger
        self._time = time

    def rows(self, *kinds: str, after: int = 0) -> Iterator[Row]:
        """As the ledger's."""
        return (row for row in self._ledger.rows(*kinds, after=after) if row.time <= self._time)

    def rows_back(self, *kinds: str) -> Iterator[Row]:
        """As the ledger's."""
        return (row for row in self._ledger.rows_back(*kinds) if row.time <= self._time)
