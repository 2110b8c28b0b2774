"""Monitor: latency, throughput, errors and drift of what the release really answered; alerts when something is off."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import Field

from treadle.core.config import Settings
from treadle.core.driver import Driver
from treadle.core.duration import Duration, seconds_of
from treadle.record.interaction import SHADOW, Interaction, is_smoke
from treadle.record.record import Record
from treadle.record.recording import Recording
from treadle.record.release import Release
from treadle.text.handles import Profile


class DriftSettings(Settings):
    """When questions count as different from those the model was trained on."""

    window: int = Field(500, ge=30, description="the latest questions that are looked at")
    false_alarm_rate: float = Field(0.01, ge=1e-4, le=0.4, description="of windows where nothing changed")


class MonitorSettings(Settings):
    """What is kept of requests, and what is watched. Metrics are always at /metrics."""

    record: Literal["redacted", "full", "none"] = Field("redacted", description="how the text of requests is kept")
    retention: Duration | None = Field("30d", description="how long, such as 30d or 12h")
    drift: DriftSettings = DriftSettings()

    def recording(self, purpose: str | None) -> Recording:
        """The rules the server records by."""
        seconds = seconds_of(self.retention) if self.retention else None
        return Recording(self.record, seconds, purpose)


@dataclass(frozen=True)
class Monitored:
    """Figures over the interactions with one release; times in seconds, None where there is nothing to measure.

    ``smoke``: nobody has asked it yet, and these are Treadle's own questions to a new release.
    """

    requests: int = 0
    smoke: bool = False
    errors: int = 0
    ttft_p50: float | None = None
    ttft_p95: float | None = None
    seconds_p95: float | None = None
    tokens_per_second: float | None = None
    drift: dict[str, Any] = field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def line(self) -> str:
        """One line for a person."""
        if not self.requests:
            return "no requests yet"
        ttft = f"ttft p95 {self.ttft_p95 * 1000:.0f} ms, " if self.ttft_p95 is not None else ""
        speed = f"{self.tokens_per_second:.0f} tok/s, " if self.tokens_per_second else ""
        drift = self.drift.get("decided", "not measured")
        kind = "smoke requests" if self.smoke else "requests"
        return f"{self.requests} {kind}: {ttft}{speed}{self.errors} errors; input drift: {drift}"


def monitor(driver: Driver, settings: MonitorSettings, record: Record, release: Release, profile: Profile) -> Monitored:
    """Measure what was recorded about a release so far, and raise the alerts that follow from it."""
    if driver.planning or release.pending:
        return Monitored()
    rows = [row for row in record.recorder.interactions(release.digest) if row.origin != SHADOW]
    found = measure(rows, settings, profile)
    if found.drift.get("decided") == "yes":
        detail = f"the latest {found.drift['n']} questions differ from the training questions"
        record.alerts.raise_("drift", detail, release.digest, found.drift)
    driver.listener.say(found.line())
    return found


def measure(rows: list[Interaction], settings: MonitorSettings, profile: Profile) -> Monitored:
    """Figures over interactions, oldest first: over those with users as soon as there are any. Smoke requests are
    questions of the training's own kind, and would hide that users ask others."""
    users = [row for row in rows if not is_smoke(row.metadata)]
    smoke, rows = bool(rows) and not users, users or rows
    ttft = [row.seconds.ttft for row in rows if row.seconds.ttft is not None]
    speeds = [row.tokens_per_second for row in rows if row.tokens_per_second is not None]
    return Monitored(
        requests=len(rows),
        smoke=smoke,
        errors=sum(row.status == "failed" for row in rows),
        ttft_p50=_quantile(ttft, 0.5),
        ttft_p95=_quantile(ttft, 0.95),
        seconds_p95=_quantile([row.seconds.total for row in rows], 0.95),
        tokens_per_second=_quantile(speeds, 0.5),
        drift=_drift(rows, settings.drift, profile),
    )


def _drift(rows: list[Interaction], settings: DriftSettings, profile: Profile) -> dict[str, Any]:
    if not any(entry.path.startswith("profile") for entry in profile.entries()):
        return {"decided": "not measured", "n": 0}
    from treadle.text.profile import drift, load_profile

    asked = [question for row in rows if (question := _question(row))][-settings.window :]
    return drift(load_profile(profile.path()), asked, false_alarm_rate=settings.false_alarm_rate).to_json()


def _question(row: Interaction) -> str:
    return "\n".join(message["content"] for message in row.messages or () if message["role"] == "user")


def _quantile(values: list[float], share: float) -> float | None:
    """The nearest-rank quantile; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
