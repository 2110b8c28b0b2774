"""Whether the database with keys and budgets can be asked, and what goes on while it cannot.

A server that degrades lets in the keys that it knows, up to what it last knew to be left of their limits. What they use
is noted on disk at once and counted in the database when that is back.
"""

from __future__ import annotations

import logging
import math
import time

_LATE = 5.0  # seconds without an answer after which the database is taken to be away, though nothing failed yet
logger = logging.getLogger("treadle.serve")


class Outage:
    """One per gateway; used in its event loop."""

    def __init__(self, degrade_seconds: float = 0.0) -> None:
        """``degrade_seconds``: how long keys are taken for good after the database was asked last; 0 to refuse."""
        self._degrade = degrade_seconds
        self._looked = -math.inf
        self._ahead = 0.0  # the database's clock less ours
        self._missed = False
        self._told = False

    @property
    def silent(self) -> float:
        """Seconds since the database was asked last with success."""
        return time.monotonic() - self._looked

    @property
    def may_lend(self) -> bool:
        """Whether a key is let in without the database."""
        return self.silent < self._degrade

    @property
    def lending(self) -> bool:
        """Whether that is what happens now."""
        return (self._missed or self.silent > _LATE) and self.may_lend

    def now(self) -> float:
        """Seconds since 1970 by the database's clock, as far as it is known."""
        return time.time() + self._ahead

    def answered(self, clock: float) -> None:
        """The database said what it is asked; ``clock`` is its time."""
        if self._told:
            logger.warning("the database with the API keys is back after %.0f s", self.silent)
        self._looked, self._ahead = time.monotonic(), clock - time.time()
        self._missed = self._told = False

    def missed(self) -> None:
        """The database could not be asked."""
        self._missed = True
        if self._degrade and not self._told:
            self._told = True
            logger.warning(
                "the database with the API keys is away: keys that are known are answered up to what was left of their"
                " limits, for at most %.0f s", self._degrade,
            )  # fmt: skip
