"""A canary: a new release with a small share of the traffic, until what it does decides about it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import Field, field_validator

from treadle.core.config import Settings
from treadle.core.duration import Duration
from treadle.core.ledger import Fact, Ledger

Decision = Literal["promote", "take_back"]


class CanarySettings(Settings):
    """How a new release meets real traffic before it gets all of it."""

    steps: list[float] = Field([0.1, 0.5], min_length=1, description="shares of the traffic, one after the other")
    min_requests: int = Field(50, ge=1, description="requests in each step before the next")
    margin: float = Field(0.05, gt=0, lt=1, description="loss of quality, from 0 to 1, that must not be missed")
    max_requests: int = Field(10000, ge=10, description="requests after which it is not looked at any longer")
    patience: Duration = Field("1h", description="how long it may take, such as 30m or 2d")

    @field_validator("steps")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        if any(not 0 < share < 1 for share in value) or sorted(set(value)) != value:
            raise ValueError("expected rising shares between 0 and 1, such as [0.1, 0.5]")
        return value


@dataclass(frozen=True, slots=True)
class Canary:
    """``release`` (of the version ``model``) against ``champion``, the release it would follow; ``share`` of the
    traffic goes to it since ``step_begun``. ``figures`` are those of the last look that changed something."""

    id: str
    release: str
    model: str
    champion: str
    share: float
    begun: str
    step_begun: str
    decision: Decision | None = None
    reason: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


class Canaries:
    """Begins, widens and ends canaries, one at a time."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def begin(self, identifier: str, release: str, model: str, champion: str, share: float) -> None:
        """Give a release a share of the traffic; the server follows."""
        body = {"id": identifier, "release": release, "model": model, "champion": champion, "share": share}
        self._ledger.append(Fact("canary.begun", body), sync=True)

    def widen(self, identifier: str, share: float, figures: dict[str, Any]) -> None:
        """Go to the next share."""
        self._ledger.append(Fact("canary.step", {"id": identifier, "share": share, "figures": figures}), sync=True)

    def decided(
        self, identifier: str, decision: Decision, reason: str, figures: dict[str, Any], taken_back: int | None = None
    ) -> Fact:
        """The row that ends it, to be appended together with what follows from it; ``taken_back`` is the number of
        the version that is not wanted any longer."""
        body = {"id": identifier, "decision": decision, "reason": reason, "figures": figures, "taken_back": taken_back}
        return Fact("canary.decided", body)

    def all(self) -> list[Canary]:
        """Every canary, oldest first."""
        found: dict[str, Canary] = {}
        for row in self._ledger.rows("canary.begun", "canary.step", "canary.decided"):
            body = row.body
            name = body["id"]
            if row.kind == "canary.begun":
                sides = (body["release"], body["model"], body["champion"])
                found[name] = Canary(name, *sides, body["share"], row.time, row.time)
            elif row.kind == "canary.step":
                step = {"share": body["share"], "step_begun": row.time, "figures": body["figures"]}
                found[name] = replace(found[name], **step)
            else:
                ending = {key: body[key] for key in ("decision", "reason", "figures")}
                found[name] = replace(found[name], **ending)
        return list(found.values())

    def open(self) -> Canary | None:
        """The canary that is not decided yet."""
        last = next(reversed(self.all()), None)
        return last if last is not None and last.decision is None else None
