"""Improve: what users said of the answers, joined to them, and whether it is enough for the next turn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pydantic import Field

from treadle.core.config import Settings
from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.ledger import now
from treadle.record.feedback import Feedback, Kind, new_feedback_id
from treadle.record.gate import judged
from treadle.record.record import Record


class RetrainSettings(Settings):
    """What makes the next turn due; whichever comes first."""

    corrections: int | None = Field(None, ge=1, description="so many corrections since the last promotion")
    drift: bool = Field(False, description="a drift alert stands")


class ImproveSettings(Settings):
    """How feedback becomes the next version."""

    retrain_when: RetrainSettings = RetrainSettings()


@dataclass(frozen=True)
class Improved:
    """Feedback since the last promotion, and the reasons why a turn is due (none: not due)."""

    feedback: int = 0
    corrections: int = 0
    thumbs_up: int = 0
    thumbs_down: int = 0
    due: tuple[str, ...] = ()

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def line(self) -> str:
        """One line for a person."""
        if not self.feedback:
            return "no feedback yet: POST /v1/feedback, or treadle feedback"
        plural = "" if self.corrections == 1 else "s"
        counts = f"{self.corrections} correction{plural}, {self.thumbs_up} thumbs up, {self.thumbs_down} thumbs down"
        return counts + ("; due: " + ", ".join(self.due) if self.due else "; no turn is due")


def improve(driver: Driver, settings: ImproveSettings, record: Record) -> Improved:
    """Count what came in since the last promotion and raise the alert that a turn is due."""
    if driver.planning:
        return Improved()
    found = gathered(settings, record)
    for reason in found.due:
        if not reason.startswith("drift"):
            champion = record.versions.alias("model", "champion")
            judgment = judged(record.ledger, champion.digest) if champion else None
            release = judgment.release if judgment else None
            record.alerts.raise_("corrections", reason, release, {"corrections": found.corrections})
    driver.listener.say(found.line())
    return found


def gathered(settings: ImproveSettings, record: Record) -> Improved:
    """Feedback since the last promotion."""
    moves = record.versions.history("champion")
    since = moves[-1]["time"] if moves else ""
    rows = [row for row in record.recorder.all_feedback() if row.time >= since and not row.erased]
    corrections = sum(row.kind == "correction" for row in rows)
    due = []
    wanted = settings.retrain_when
    if wanted.corrections is not None and corrections >= wanted.corrections:
        due.append(f"corrections {corrections} >= {wanted.corrections}")
    if wanted.drift and any(alert.kind == "drift" for alert in record.alerts.open()):
        due.append("drift alert")
    thumbs = [row.value for row in rows if row.kind == "thumbs"]
    return Improved(len(rows), corrections, thumbs.count(1), thumbs.count(0), tuple(due))


def give_feedback(
    record: Record,
    interaction: str,
    kind: Kind,
    value: float | None,
    correction: str | None,
    comment: str | None,
    user: str | None,
) -> Feedback:
    """Record feedback on an interaction that exists; ``UserError`` otherwise. Texts come redacted already."""
    if record.recorder.find_interaction(interaction) is None:
        raise UserError(f"there is no interaction {interaction!r}; its id is printed with each answer (int-...)")
    keyed = record.recorder.keyed(user) if user else None
    row = Feedback(new_feedback_id(), interaction, now(), kind, value, correction, comment, keyed, "cli")
    same = next((old for old in record.recorder.feedback_on(interaction) if old.says_the_same(row)), None)
    if same is not None:
        return same
    record.recorder.feedback(row)
    return row
