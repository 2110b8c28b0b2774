"""Where pods on Kubernetes take the keys of clients from: one key that is in the secret, or those of a project, with
budgets and rates that all pods share by way of its PostgreSQL.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Self

from treadle.core.duration import parse_seconds
from treadle.core.errors import UserError
from treadle.stages.deploy.carried_keys import DEGRADE, VARIABLE
from treadle.stages.deploy.targets import check_port

KEY = "TREADLE_API_KEY"
WAYS = ("postgresql",)
_DNS, _PORT = 53, 5432  # of name servers and of PostgreSQL
_METRICS = "metrics"  # in the secret: a key whose scope names them
_ONE_SAID = """\
# Clients send the one key in the secret. Each pod stands alone: keys of `treadle keys`, with their budgets and rates,
# are not known here without --with keys=postgresql.
"""
_SHARED_SAID = f"""\
# Clients send keys of `treadle keys`. All pods take these, their budgets and rates from the project's database, whose
# URL is {VARIABLE} in the secret, and nowhere else; docs/stages/deploy.md says what its role has to be granted.
# With a `key` in the secret, that one is good for everything as well.
"""


@dataclass(frozen=True)
class ClientKeys:
    """``where``: empty for the one key, or ``postgresql``. ``degrade_for``: how long keys are good while the database
    is away. ``port`` and ``network`` (a CIDR) of the database are for the network policy."""

    where: str = ""
    degrade_for: str = ""
    port: int = _PORT
    network: str = ""

    def checked(self, target: str) -> Self:
        """Itself; ``UserError`` for settings that nothing can be made of."""
        if self.where not in ("", *WAYS):
            raise UserError(f"target {target}: keys {self.where!r}: expected {' or '.join(WAYS)}")
        if not self.shared and (self.degrade_for or self.network or self.port != _PORT):
            raise UserError(
                f"target {target}: degrade_for, database_port and database_network are of a database: keys=postgresql"
            )
        if self.degrade_for:
            try:
                parse_seconds(self.degrade_for)
            except ValueError as error:
                raise UserError(f"target {target}: degrade_for {self.degrade_for!r}: {error}") from None
        check_port(target, self.port, "database_port")
        if self.network:
            try:
                ipaddress.ip_network(self.network)
            except ValueError as error:
                raise UserError(f"target {target}: database_network: {error}; expected such as 10.0.5.0/24") from None
        return self

    @property
    def shared(self) -> bool:
        """Whether they are a project's."""
        return bool(self.where)

    def secrets(self) -> list[str]:
        """Variables of a pod that come from the secret, by their own names."""
        return [VARIABLE] if self.shared else []

    def plain(self) -> list[dict[str, str]]:
        """Variables of a pod that are no secret."""
        return [{"name": DEGRADE, "value": self.degrade_for}] if self.degrade_for else []

    def held(self, *, scraped: bool = False) -> dict[str, str]:
        """What the secret holds at least: the shell's variables by its own names. ``scraped``: and what Prometheus
        asks with."""
        if not self.shared:
            return {"key": KEY}
        return {VARIABLE: VARIABLE} | ({_METRICS: "TREADLE_METRICS_KEY"} if scraped else {})

    def scraping(self) -> str:
        """The name in the secret of what Prometheus asks with."""
        return _METRICS if self.shared else "key"

    def egress(self) -> list[dict[str, Any]]:
        """Where pods may connect to: a name server, and the database."""
        if not self.shared:
            return []
        database: dict[str, Any] = {"ports": [{"port": self.port, "protocol": "TCP"}]}
        if self.network:
            cidr = str(ipaddress.ip_network(self.network))  # as Kubernetes takes it: a single address has its length
            database["to"] = [{"ipBlock": {"cidr": cidr}}]
        return [{"ports": [{"port": _DNS, "protocol": each} for each in ("UDP", "TCP")]}, database]

    def said(self) -> str:
        """As comments."""
        return _SHARED_SAID if self.shared else _ONE_SAID


ONE_KEY = ClientKeys()
