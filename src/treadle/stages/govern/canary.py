"""What a canary's traffic says about it so far: go on, widen, promote, take back, or that it cannot be told.

One figure can decide for it, quality: what people said of its answers, against the champion's in the same days. Four
only ever decide against it: errors, empty answers, and two kinds of slowness. All are looked at after any request
through a confidence sequence, so looking often costs nothing. A release that is no worse than the champion is taken
back with a probability of at most 5 %: half of that is for quality, the other half is shared by the four guards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from treadle.core.duration import seconds_of
from treadle.evals.sequential import ALPHA, Groups, compare, further_requests
from treadle.record.canary import Canary, CanarySettings
from treadle.record.feedback import Feedback
from treadle.record.interaction import Interaction
from treadle.stages.govern.arms import Arms, arms, moment

Action = Literal["wait", "widen", "promote", "take_back", "undecided"]
GUARD_MARGIN = 0.1  # the rise of a bad rate that the guards see soonest
GUARDS = {"errors": "errors", "empty": "empty answers", "first_token": "slow first tokens", "slow": "slow answers"}
# So many answers, bad without exception, end it at once. The first ones of a new release may be slow.
_ALL_BAD = {"errors": 5, "empty": 5, "first_token": 20, "slow": 20}


@dataclass(frozen=True)
class Verdict:
    """``reason`` is one line. ``figures`` is JSON: ``n`` for both arms, and for quality and each guard the two rates,
    their difference (new minus champion) and its bounds."""

    action: Action
    reason: str
    figures: dict[str, Any]


def look(
    settings: CanarySettings,
    canary: Canary,
    interactions: Iterable[Interaction],
    feedback: Iterable[Feedback],
    now: datetime,
) -> Verdict:
    """Decide, or say what is missing. One pass over both, in any order; nothing from before the canary counts."""
    seen = arms(canary, interactions, feedback)
    quality = Measure(seen.new.ratings, seen.champion.ratings, settings.margin, ALPHA)
    guards = {name: Guard.of(name, seen) for name in GUARDS}
    return _Trial(settings, canary, seen, quality, guards, now).verdict()


class Measure:
    """One figure of both arms, and what can be told of its difference. Counts are of answers; in rates and their
    difference no person weighs more than ten answers."""

    def __init__(self, new: Groups, champion: Groups, margin: float, alpha: float) -> None:
        self.sides = {"new": new, "champion": champion}
        self.new, self.champion = new.values, champion.values
        self.worth = (new.worth(), champion.worth())
        self.found = compare(*self.worth, margin=margin, alpha=alpha)

    @property
    def interval(self) -> str:
        """Difference and bounds as text."""
        found = self.found
        return f"{found.value or 0:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"

    def public(self) -> dict[str, Any]:
        """As JSON."""
        sides = {"new": self.new, "champion": self.champion}
        found = self.found
        return {
            "n": {name: int(arm.n) for name, arm in sides.items()},
            **{name: _rounded(arm.mean) for name, arm in zip(sides, self.worth, strict=True)},
            "difference": _rounded(found.value),
            "low": _rounded(found.low),
            "high": _rounded(found.high),
        }


class Guard(Measure):
    """A rate of bad answers. ``limit``: seconds beyond which an answer is slow; nothing is, as long as it is None."""

    def __init__(self, name: str, new: Groups, champion: Groups, limit: float | None = None) -> None:
        super().__init__(new, champion, GUARD_MARGIN, ALPHA / len(GUARDS))
        self.name, self.limit = name, limit

    @classmethod
    def of(cls, name: str, seen: Arms) -> Guard:
        """One of ``GUARDS``."""
        if name == "errors":
            return cls(name, seen.new.failed, seen.champion.failed)
        if name == "empty":
            return cls(name, seen.new.empty, seen.champion.empty)
        limit = seen.limit(name)
        if limit is None:
            return cls(name, Groups(), Groups())
        return cls(name, getattr(seen.new, name).beyond(limit), getattr(seen.champion, name).beyond(limit), limit)

    @property
    def worse(self) -> bool:
        """More bad answers than the champion's, beyond chance; or none but bad ones, while the champion's are not."""
        return self.all_bad or self.found.higher

    @property
    def all_bad(self) -> bool:
        """From the start, and not for one person alone where others ask too."""
        if self.new.n < _ALL_BAD[self.name] or self.new.total < self.new.n:
            return False
        return not self.champion.n or (self.sides["new"].count > 1 and 4 * self.champion.total < self.champion.n)

    def __str__(self) -> str:
        if not self.new.total and not self.champion.total:
            return f"{GUARDS[self.name]} 0/0"
        (bad, n), (others, of) = ((int(arm.total), int(arm.n)) for arm in (self.new, self.champion))
        limit = f" (over {self.limit * 1e3:,.0f} ms)" if self.limit else ""
        return f"{GUARDS[self.name]}{limit} {bad:,} of {n:,}, the champion's {others:,} of {of:,}"


@dataclass(frozen=True)
class _Trial:
    """Everything that a verdict is made of."""

    settings: CanarySettings
    canary: Canary
    seen: Arms
    quality: Measure
    guards: dict[str, Guard]
    now: datetime

    def verdict(self) -> Verdict:
        """The rules, in the order in which they hold."""
        settings, quality, step = self.settings, self.quality.found, self.seen.step
        for guard in self.guards.values():
            if guard.worse:
                return self._say("take_back", f"{guard}" + ("" if guard.all_bad else f": {guard.interval}"))
        if quality.lower:
            return self._say("take_back", f"quality is worse: {self._rates()}; {self._guarded()}")
        last = not any(share > self.canary.share for share in settings.steps)
        if last and step >= settings.min_requests and quality.close_enough:
            said = f"quality is not worse by {settings.margin:g}: {self._rates()}; {self._guarded()}"
            return self._say("promote", said)
        stopped = self._stopped()
        if stopped:
            return self._say("undecided", self._undecidable(f"{self._rated()}; stopped {stopped}"))
        if step < settings.min_requests:
            return self._say("wait", f"{step:,} of {settings.min_requests:,} requests at {self.canary.share:.0%}")
        if not last:
            return self._say("widen", f"nothing is worse after {step:,} requests at this share: {self._guarded()}")
        return self._projected()

    def _projected(self) -> Verdict:
        """Enough requests in the last step, and quality still open: wait only where waiting can help."""
        settings, seen = self.settings, self.seen
        rate = sum(arm.n for arm in self.quality.worth) / seen.total
        share = self.canary.share
        further = further_requests(*self.quality.worth, share=share, per_request=rate, margin=settings.margin)
        if further is None:
            return self._say("undecided", self._undecidable("no rated answer"))
        needed = seen.total + further
        left = seconds_of(settings.patience) - self._seconds(self.canary.begun)
        late = further * self._seconds(self.canary.step_begun) > left * seen.step
        if needed > settings.max_requests or late:
            slow = "" if needed > settings.max_requests else f", more than come within {settings.patience}"
            why = f"{self._rated()}; deciding needs about {_about(needed)} requests{slow}"
            return self._say("undecided", self._undecidable(why), needed)
        said = f"quality is open at n={seen.total:,} ({self._rated()}): about {_about(further)} more requests"
        return self._say("wait", said, needed)

    def _stopped(self) -> str:
        """Why it is not looked at any longer; empty while it is."""
        settings = self.settings
        if self.seen.total >= settings.max_requests:
            return f"at {settings.max_requests:,} requests"
        if self._seconds(self.canary.begun) >= seconds_of(settings.patience):
            return f"after {settings.patience}"
        return ""

    def _undecidable(self, why: str) -> str:
        said = f"quality not decidable at n={self.seen.total:,} ({why})"
        return f"{said}: {self._guarded()}" if self.seen.new.n else f"{said}: the new release answered nobody"

    def _rates(self) -> str:
        new, old = (arm.mean or 0 for arm in self.quality.worth)
        return f"{new:.3f} against {old:.3f}, {self.quality.interval} ({self._rated()})"

    def _rated(self) -> str:
        rated = int(self.quality.new.n + self.quality.champion.n)
        return f"{rated:,} rated answer{'' if rated == 1 else 's'}"

    def _guarded(self) -> str:
        """Errors and what is not 0 of the rest, and the time to first token of both arms."""
        said = [str(guard) for name, guard in self.guards.items() if name == "errors" or guard.new.total]
        new, old = (side.first_token.quantile(0.5) for side in (self.seen.new, self.seen.champion))
        if new is not None and old is not None:
            said.append(f"time to first token {new * 1e3:,.0f}/{old * 1e3:,.0f} ms")
        return ", ".join(said)

    def _seconds(self, since: str) -> float:
        return max(0.0, (self.now - moment(since)).total_seconds())

    def _say(self, action: Action, reason: str, needed: int | None = None) -> Verdict:
        seen = self.seen
        figures: dict[str, Any] = {
            "n": {"new": seen.new.n, "champion": seen.champion.n, "step": seen.step},
            "share": self.canary.share,
            "quality": self.quality.public(),
            **{name: guard.public() for name, guard in self.guards.items()},
            "needed": needed,
        }
        for name in ("first_token", "slow"):
            for side, arm in (("new", seen.new), ("champion", seen.champion)):
                figures[name][f"{side}_seconds"] = _rounded(getattr(arm, name).quantile(0.5))
            figures[name]["limit_seconds"] = _rounded(self.guards[name].limit)
        return Verdict(action, reason, figures)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _about(number: int) -> str:
    """Two digits are all that a projection is worth."""
    step = 10 ** max(0, math.floor(math.log10(max(1, number))) - 1)
    return f"{math.ceil(number / step) * step:,}"
