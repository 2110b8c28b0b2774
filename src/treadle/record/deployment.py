"""A deployment: a release with a share of the traffic at an endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.core.ledger import Fact, Ledger


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which release answers where; ``share`` is its part of the traffic, from 0 to 1."""

    release: str
    model: str
    endpoint: str
    share: float
    time: str


class Deployments:
    """Records what was deployed; the latest row is in force."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def record(self, release: str, model: str, endpoint: str, share: float = 1.0) -> None:
        """Say that a release answers at an endpoint from now on; nothing is written when it already does."""
        now = self.current()
        if now is None or (now.release, now.endpoint, now.share) != (release, endpoint, share):
            body = {"release": release, "model": model, "endpoint": endpoint, "share": share}
            self._ledger.append(Fact("deployment", body), sync=True)

    def current(self) -> Deployment | None:
        """The deployment in force."""
        row = self._ledger.last("deployment")
        if row is None:
            return None
        body = row.body
        return Deployment(body["release"], body["model"], body["endpoint"], body["share"], row.time)
