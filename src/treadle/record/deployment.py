"""A deployment: a release with a share of the traffic at an endpoint.

What ought to be deployed follows from the record (`Routing`): the champion's release, and a canary where there is one.
A server that follows the record writes down what it does as deployments.
"""

from __future__ import annotations

from dataclasses import dataclass

from treadle.core.ledger import Fact, Ledger
from treadle.record.canary import Canaries
from treadle.record.version import Versions


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which release answers where; ``share`` is its part of the traffic, from 0 to 1."""

    release: str
    model: str
    endpoint: str
    share: float
    time: str


@dataclass(frozen=True, slots=True)
class Routing:
    """Digests of releases: who answers, and who gets ``share`` of the requests to be tried; ``fallback`` answers what
    these cannot, ``shadow`` gets copies."""

    champion: str
    canary: str | None = None
    share: float = 0.0
    fallback: str | None = None
    shadow: str | None = None

    def all(self) -> set[str]:
        """Every release in it."""
        return {each for each in (self.champion, self.canary, self.fallback, self.shadow) if each}


class Deployments:
    """Records what was deployed; for each release and endpoint the latest row is in force, and a share of 1 leaves
    nothing for others there."""

    def __init__(self, ledger: Ledger, versions: Versions, canaries: Canaries) -> None:
        self._ledger = ledger
        self._versions = versions
        self._canaries = canaries

    def record(self, release: str, model: str, endpoint: str, share: float = 1.0) -> None:
        """Say that a release answers at an endpoint with this share from now on; nothing is written when it does."""
        standing = {each.release: each.share for each in self.all() if each.endpoint == endpoint}
        if standing.get(release, 0.0) != share:
            body = {"release": release, "model": model, "endpoint": endpoint, "share": share}
            self._ledger.append(Fact("deployment", body), sync=True)

    def all(self) -> list[Deployment]:
        """What is in force, in the order it was recorded; releases without a share are left out."""
        found: dict[tuple[str, str], Deployment] = {}
        for row in self._ledger.rows("deployment"):
            body = row.body
            key = (body["release"], body["endpoint"])
            found.pop(key, None)
            if body["share"] == 1:
                found = {each: there for each, there in found.items() if each[1] != body["endpoint"]}
            if body["share"] > 0:
                found[key] = Deployment(body["release"], body["model"], body["endpoint"], body["share"], row.time)
        return list(found.values())

    def history(self) -> list[Deployment]:
        """Every row, oldest first."""
        rows = self._ledger.rows("deployment")
        return [Deployment(**{**row.body, "time": row.time}) for row in rows]

    def current(self) -> Deployment | None:
        """The release with the largest share, of the endpoint where something changed last."""
        in_force = self.all()
        if not in_force:
            return None
        endpoint = in_force[-1].endpoint
        return max((each for each in in_force if each.endpoint == endpoint), key=lambda each: each.share)

    def wanted(self) -> Routing | None:
        """Who ought to answer; None before the first promotion, and after the champion was erased."""
        if self._versions.alias("model", "champion") is None:
            return None
        champion = self._versions.served()
        if champion is None:
            return None
        canary = self._canaries.open()
        if canary is None or canary.release == champion:
            return Routing(champion)
        return Routing(champion, canary.release, canary.share)
