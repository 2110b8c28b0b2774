"""An alert: what monitoring noticed, kept until something answers it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from treadle.core.ledger import Fact, Ledger
from treadle.record.version import IMPORTED


@dataclass(frozen=True, slots=True)
class Alert:
    """``kind`` is drift, errors, latency, corrections ...; ``figures`` are the numbers that raised it."""

    kind: str
    detail: str
    release: str | None
    time: str
    figures: dict[str, Any] = field(default_factory=dict)

    def public(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Alerts:
    """Raises and lists alerts. One kind about one release is raised once."""

    def __init__(self, ledger: Ledger, project: str) -> None:
        """``project``: whose champion's promotion answers alerts."""
        self._ledger = ledger
        self._project = project

    def raise_(self, kind: str, detail: str, release: str | None, figures: dict[str, Any]) -> bool:
        """Record an alert; False when the same kind stands for the same release already."""
        if any(alert.kind == kind and alert.release == release for alert in self.open()):
            return False
        self._ledger.append(Fact("alert", {"of": kind, "detail": detail, "release": release, "figures": figures}))
        return True

    def open(self) -> list[Alert]:
        """Alerts since the last promotion, which answers those before it."""
        standing: list[Alert] = []
        for row in self._ledger.rows("alert", "alias"):
            body = row.body
            if row.kind == "alert":
                standing.append(Alert(body["of"], body["detail"], body["release"], row.time, body["figures"]))
            elif (body["name"], body["alias"]) == (self._project, "champion") and body["reason"] != IMPORTED:
                standing.clear()
        return standing
