"""When a turn is due by the rules in the file, and what holds it back.

A turn takes what was there when it began, so corrections and requests count from then on, and of requests those that
somebody sent: what a turn itself asks its new release would make the next one due. After a turn there is a
rest, doubled with each turn in a row that gave no new champion; a budget bounds what begins by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from treadle.core.duration import seconds_of
from treadle.record.record import Record
from treadle.record.turn import TurnRecord
from treadle.stages.improve.settings import ImproveSettings

_MOST_DOUBLINGS = 8


@dataclass(frozen=True, slots=True)
class Due:
    """``reasons`` in words; ``held_back`` says why it must wait all the same, empty when it need not."""

    reasons: tuple[str, ...] = ()
    held_back: str = ""


def due(settings: ImproveSettings, record: Record, corrections: int, now: datetime | None = None) -> Due:
    """What the rules say at this moment; ``corrections`` counts those that no turn has taken yet."""
    now = now or datetime.now(UTC)
    moves = record.versions.history("champion")
    if not moves:
        return Due()
    reasons = tuple(_reasons(settings, record, corrections, moves[-1]["time"], now))
    return Due(reasons, _held_back(settings, record, now) if reasons else "")


def _reasons(settings: ImproveSettings, record: Record, corrections: int, promoted: str, now: datetime) -> list[str]:
    wanted, since = settings.retrain_when, record.turns.since()
    found = []
    if wanted.corrections is not None and corrections >= wanted.corrections:
        found.append(f"corrections {corrections} >= {wanted.corrections}")
    if wanted.drift and any(alert.kind == "drift" for alert in record.alerts.open()):
        found.append("drift alert")
    if wanted.age is not None and now - _time(promoted) >= timedelta(seconds=seconds_of(wanted.age)):
        found.append(f"age of the champion >= {wanted.age}")
    if wanted.volume is not None:
        requests = sum(row.asked_for for row in record.recorder.interactions_since(since or promoted))
        if requests >= wanted.volume:
            found.append(f"volume {requests} >= {wanted.volume} requests")
    if wanted.schedule is not None:
        from cronsim import CronSim

        begun = record.turns.latest()
        if next(CronSim(wanted.schedule, _time(begun.begun if begun else promoted))) <= now:
            found.append(f"schedule {wanted.schedule}")
    return found


def _held_back(settings: ImproveSettings, record: Record, now: datetime) -> str:
    turns = record.turns.all()
    if turns and turns[-1].outcome == "waiting" and _still_waits(record, turns[-1]):
        return f"{turns[-1].candidate} waits for approval"
    if record.canaries.open() is not None:
        return "a canary is being tried"
    per = timedelta(seconds=seconds_of(settings.budget.per))
    begun = [turn for turn in turns if turn.number > 1 and _time(turn.begun) > now - per]
    if len(begun) >= settings.budget.turns:
        return f"the budget of {settings.budget.turns} turns per {settings.budget.per} is used up"
    if turns and turns[-1].number > 1 and turns[-1].ended:
        doublings = min(fruitless(record, turns), _MOST_DOUBLINGS)
        until = _time(turns[-1].ended) + timedelta(seconds=seconds_of(settings.cooldown) * 2**doublings)
        if now < until:
            return f"cooldown until {until.isoformat(timespec='seconds')}"
    return ""


def fruitless(record: Record, turns: list[TurnRecord]) -> int:
    """How many of the last turns in a row gave no new champion."""
    count = 0
    for turn in reversed(turns):
        version = record.versions.resolve(turn.candidate) if turn.outcome == "canary" and turn.candidate else None
        taken_back = version is not None and record.versions.taken_back(version) is not None
        if turn.outcome not in ("refused", "failed") and not taken_back:
            break
        count += 1
    return count


def _still_waits(record: Record, turn: TurnRecord) -> bool:
    version = record.versions.resolve(turn.candidate) if turn.candidate else None
    if version is None or record.approvals.rejected(version.ref):
        return False
    return version not in (record.versions.alias("model", "champion"), record.versions.alias("model", "previous"))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
