"""Improve: what users said of the answers becomes the next training set, and says when the next turn is due."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.ledger import now
from treadle.record.feedback import Feedback, FeedbackSource, Kind, new_feedback_id
from treadle.record.gate import judged
from treadle.record.record import Record
from treadle.stages.improve.settings import CorrectionSettings, ImproveSettings
from treadle.stages.improve.triggers import due

__all__ = ["CorrectionSettings", "ImproveSettings", "Improved", "gathered", "give_feedback", "improve"]


@dataclass(frozen=True)
class Improved:
    """Feedback since the last turn took some, and the reasons why a turn is due (none: not due)."""

    feedback: int = 0
    corrections: int = 0
    thumbs_up: int = 0
    thumbs_down: int = 0
    due: tuple[str, ...] = ()
    held_back: str = ""
    since: str = ""

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def line(self) -> str:
        """One line for a person."""
        counts = "no feedback yet: POST /v1/feedback, or treadle feedback"
        if self.since:
            counts = "no new feedback since the last turn began"
        if self.feedback:
            plural = "" if self.corrections == 1 else "s"
            counts = f"{self.corrections} new correction{plural}, {self.thumbs_up} thumbs up"
            counts += f", {self.thumbs_down} thumbs down"
        if not self.due:
            return counts + ("; no turn is due" if self.feedback else "")
        return f"{counts}; due: {', '.join(self.due)}" + (f" (held back: {self.held_back})" if self.held_back else "")


def improve(driver: Driver, settings: ImproveSettings, record: Record) -> Improved:
    """Count what came in since the last turn and raise the alert that a turn is due."""
    if driver.planning:
        return Improved()
    found = gathered(settings, record)
    champion = record.versions.alias("model", "champion")
    judgment = judged(record.ledger, champion.digest) if champion else None
    for kind, reason in _kinds(found):
        figures = {"corrections": found.corrections}
        record.alerts.raise_(kind, reason, judgment.release if judgment else None, figures)
    driver.listener.say(found.line())
    return found


def _kinds(found: Improved) -> list[tuple[str, str]]:
    """Alerts by what raised them; drift has raised its own already."""
    return [(reason.split()[0], reason) for reason in found.due if not reason.startswith("drift")]


def gathered(settings: ImproveSettings, record: Record) -> Improved:
    """Feedback since the last turn took some, and what is due now."""
    since = record.turns.since()
    rows = [row for row in record.recorder.feedback_since(since) if row.time > since and not row.erased]
    corrections = len({(row.interaction, row.user) for row in rows if row.kind == "correction"})
    thumbs = [row.value for row in rows if row.kind == "thumbs"]
    found = due(settings, record, corrections)
    return Improved(len(rows), corrections, thumbs.count(1), thumbs.count(0), found.reasons, found.held_back, since)


def give_feedback(
    record: Record,
    interaction: str,
    kind: Kind,
    value: float | None,
    correction: str | None,
    comment: str | None,
    user: str | None,
    source: FeedbackSource = "cli",
) -> Feedback:
    """Record feedback on an interaction that exists; ``UserError`` otherwise. Texts come redacted already."""
    if record.recorder.find_interaction(interaction) is None:
        raise UserError(f"there is no interaction {interaction!r}; its id is printed with each answer (int-...)")
    keyed = record.recorder.keyed(user) if user else None
    row = Feedback(new_feedback_id(), interaction, now(), kind, value, correction, comment, keyed, source)
    # Only against the last word of the same kind: up, down, up again is a change of mind, not a repetition.
    before = [old for old in record.recorder.feedback_on(interaction) if old.kind == kind and old.user == row.user]
    if before and before[-1].says_the_same(row):
        return before[-1]
    record.recorder.feedback(row)
    return row
