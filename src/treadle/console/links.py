"""One-time links: how a person on this machine gets in without a password.

A link works once, within ten minutes. Only the hash of its secret is kept, in the project's state, so any process of
the project may make one for the console that runs.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from treadle.core.state import State

LINK_SECONDS = 600.0
_KEPT_SECONDS = 86_400.0  # a used or expired link is told apart from one that never was for so long
_PREFIX = "console.link:"
_FORM = re.compile(r"([A-Za-z0-9_-]{16})\.([A-Za-z0-9_-]{43})\Z")


@dataclass(frozen=True, slots=True)
class Person:
    """Who is at it: a name to show, and the keyed digest that the ledger knows them by."""

    name: str
    actor: str


class NotAdmitted(Exception):
    """A link that does not open the door: ``why`` is ``unknown``, ``used`` or ``expired``."""

    def __init__(self, why: str, link: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.link = link


class Links:
    """Makes and takes links; ``clock`` gives seconds since 1970."""

    def __init__(self, state: State, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._clock = clock

    def make(self, person: Person) -> str:
        """A fresh token; its secret is nowhere else."""
        link, secret = secrets.token_urlsafe(12), secrets.token_urlsafe(32)
        row = {"hash": _hash(secret), "expires": self._clock() + LINK_SECONDS}
        self._state.set(_PREFIX + link, row | {"name": person.name, "actor": person.actor})
        return f"{link}.{secret}"

    def take(self, token: str) -> tuple[Person, str]:
        """Whom a token is for, and the link's own name; it is used up by this. Raises ``NotAdmitted``."""
        match = _FORM.match(token)
        name = _PREFIX + (match[1] if match else "")
        row = self._state.get(name) if match else None
        if match is None or row is None or not hmac.compare_digest(row["hash"], _hash(match[2])):
            raise NotAdmitted("unknown")
        if "actor" in row and row["expires"] < self._clock():
            raise NotAdmitted("expired")
        # Of two who come at once, one finds what the other left.
        before: dict[str, Any] = self._state.swap(name, {"hash": row["hash"], "expires": row["expires"]}) or {}
        if "actor" not in before:
            raise NotAdmitted("used", match[1])
        return Person(before["name"], before["actor"]), match[1]

    def sweep(self) -> None:
        """Forget links that ended long ago."""
        for name in self._state.names(_PREFIX):
            row = self._state.get(name)
            if row is not None and row["expires"] < self._clock() - _KEPT_SECONDS:
                self._state.swap(name, None)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
