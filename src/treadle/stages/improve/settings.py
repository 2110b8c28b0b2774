"""What makes the next turn due, what it learns from, and how its version gets into force."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from treadle.core.config import Settings
from treadle.core.duration import Duration
from treadle.record.canary import CanarySettings


class RetrainSettings(Settings):
    """What makes the next turn due; whichever comes first."""

    corrections: int | None = Field(None, ge=1, description="so many new corrections")
    drift: bool = Field(False, description="a drift alert stands")
    age: Duration | None = Field(None, description="the champion is older than this, such as 30d")
    volume: int | None = Field(None, ge=1, description="so many requests of users since the last turn")
    schedule: str | None = Field(None, description="times in UTC as cron has them, such as 0 3 * * 1")

    @field_validator("schedule")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None:
            from datetime import UTC, datetime

            from cronsim import CronSim, CronSimError

            try:
                CronSim(value, datetime.now(UTC))
            except CronSimError as error:
                raise ValueError(f"{error}; expected five fields as cron has them, such as 0 3 * * 1") from None
        return value


class BudgetSettings(Settings):
    """How many turns may begin by themselves in which time."""

    turns: int = Field(7, ge=1, description="at most so many")
    per: Duration = Field("7d", description="in this time")


class CorrectionSettings(Settings):
    """Which corrections are learned from."""

    license: str | None = Field(None, description="under which your users give their corrections")
    per_person: int = Field(100, ge=1, description="of one person, at most so many in all; the newest count")
    test_share: float = Field(0.2, ge=0, le=0.5, description="kept as test cases for all later versions")
    replay: float = Field(0.5, ge=0, lt=1, description="share of the training budget kept for the old data")


class ImproveSettings(Settings):
    """How feedback becomes the next version, and how that gets into force."""

    retrain_when: RetrainSettings = RetrainSettings()
    train_from: Literal["champion", "base"] = Field("champion", description="which model later turns train on")
    tokens: int | None = Field(None, ge=1, description="training budget of later turns; develop.tokens by default")
    corrections: CorrectionSettings = CorrectionSettings()
    cooldown: Duration = Field("1h", description="rest after a turn; doubled with each that gave no new champion")
    budget: BudgetSettings = BudgetSettings()
    canary: CanarySettings | None = CanarySettings()
    promote: Literal["ask", "auto"] = Field("ask", description="ask: a person agrees before a champion is replaced")
