"""Two arms compared after every request, as often as one likes: a confidence sequence for the difference of means.

A fixed-size test that is looked at again and again is wrong more often with each look. A confidence sequence is a row
of intervals, one for each look, that hold all at once: however often one looks and whenever one stops, each of the two
bounds was ever wrong with a probability of at most ``alpha / 2``.

The difference of two means, times its information I = 1 / variance, moves like a Brownian motion with time I,
whatever the sizes of the arms and however their shares change (Jennison and Turnbull 2000). A normal
mixture over the effect turns that into a sequence of bounds (Robbins 1970; Johari, Koomen, Pekelis and Walsh 2022; the
asymptotic theory with a variance that is estimated: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024). The mixture
here is not centered on 0 but on ``margin``, the difference that must not be missed, with half of it as its standard
deviation: that is where the bounds are tightest.

What it does not know: values are taken for independent between groups (see `Groups`), and arms for drawn by lot. It
is asymptotic; how often it is wrong with small arms and with rates near 0 and 1 is measured by simulation in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, log, log1p, sqrt

ALPHA = 0.05
MARGIN = 0.05
MOST = 10  # values that a group weighs at the most
_SPREAD = 0.5  # standard deviation of the mixture, in margins
_STEPS = 80  # of bisection


@dataclass(slots=True)
class Arm:
    """Sums of values in [0, 1]; ``n`` is how many independent ones they are worth."""

    n: float = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self.n += 1
        self.total += value
        self.squares += value * value

    def times(self, factor: float) -> Arm:
        """As many values as this, times a factor, distributed alike."""
        return Arm(self.n * factor, self.total * factor, self.squares * factor)

    @property
    def mean(self) -> float | None:
        """None before the first value."""
        return self.total / self.n if self.n else None

    @property
    def variance(self) -> float:
        """Of one value, with a 0 and a 1 added to those seen: never 0, and 1/4 before the first."""
        n = self.n + 2
        mean = (self.total + 1) / n
        return (self.squares + 1) / n - mean * mean


@dataclass(slots=True)
class Groups:
    """Values of one arm that hang together in groups, such as all that one person got; ``None`` is a group of its own.

    No group weighs more than ``MOST`` values do, however large it is. An arm of n such values is worth n / d
    independent ones: d, the design effect (Kish 1965), is how much the groups' sums of deviations vary more than they
    would by chance. Where all values are equal, a group is worth one.
    """

    values: Arm = field(default_factory=Arm)  # as they came
    _alone: Arm = field(default_factory=Arm)
    _of: dict[int, Arm] = field(default_factory=dict)

    def add(self, value: float, group: int | None = None) -> None:
        """One more value of a group."""
        self.values.add(value)
        if group is None:
            self._alone.add(value)
        else:
            self._of.setdefault(group, Arm()).add(value)

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(self._of) + int(self._alone.n)

    def worth(self) -> Arm:
        """The arm as independent values."""
        alone = self._alone
        groups = [each.times(min(1.0, MOST / each.n)) for each in self._of.values()]
        n, total, squares = (
            sum(getattr(each, name) for each in (alone, *groups)) for name in ("n", "total", "squares")
        )
        mean = (total + 1) / (n + 2)
        single = _deviations(Arm(n, total, squares), mean)
        grouped = _deviations(alone, mean) + sum((each.total - each.n * mean) ** 2 for each in groups)
        effect = max(1.0, grouped / single) if single > 0 else 1.0
        return Arm(n, total, squares).times(1 / effect)


def _deviations(arm: Arm, mean: float) -> float:
    return arm.squares - 2 * mean * arm.total + arm.n * mean * mean


@dataclass(frozen=True, slots=True)
class Difference:
    """New minus old, with the bounds of this look; [-1, 1] and no value while an arm is empty."""

    value: float | None
    low: float
    high: float
    margin: float

    @property
    def lower(self) -> bool:
        """The new arm's mean is below the old one's, beyond chance."""
        return self.high < 0

    @property
    def higher(self) -> bool:
        """The new arm's mean is above the old one's, beyond chance."""
        return self.low > 0

    @property
    def close_enough(self) -> bool:
        """The new arm's mean is not below the old one's by as much as the margin, beyond chance."""
        return self.low > -self.margin


def compare(new: Arm, old: Arm, *, margin: float = MARGIN, alpha: float = ALPHA) -> Difference:
    """The difference as it may be told after any look; each bound errs with at most ``alpha / 2``. O(1)."""
    if not new.n or not old.n:
        return Difference(None, -1.0, 1.0, margin)
    value = new.total / new.n - old.total / old.n
    half = half_width(1 / _variance(new, old, margin), margin, alpha)
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), margin)


def half_width(information: float, margin: float = MARGIN, alpha: float = ALPHA) -> float:
    """Of the bounds around a difference that is known with this information (1 / variance).

    Mixed over effects e ~ N(m, t²), the likelihood ratio against no effect is
    exp(((S + m/t²)² / (I + 1/t²) - m²/t²) / 2) / sqrt(1 + t² I); it reaches 2/alpha where S is I times what is
    returned here (Ville's inequality).
    """
    spread = _SPREAD * margin
    precision = 1 / (spread * spread)
    center = margin * precision
    needed = margin * center + 2 * log(2 / alpha) + log1p(information / precision)
    return (sqrt((precision + information) * needed) - center) / information


def further_requests(
    new: Arm, old: Arm, *, share: float, per_request: float, margin: float = MARGIN, alpha: float = ALPHA
) -> int | None:
    """About how many more requests until "not worse by the margin" or "worse" can be said; None for never.

    ``share`` of the requests goes to the new arm and ``per_request`` of them leave a value. As long as neither can be
    said, both no loss and a loss of the margin are possible; this is when the bounds are narrow enough to rule one
    out, which is in the middle of the cases where one of the two is true. What lies between them takes longer.
    """
    found = compare(new, old, margin=margin, alpha=alpha)
    if found.lower or found.close_enough:
        return 0
    if per_request <= 0 or not 0 < share < 1:
        return None
    wanted = margin
    if found.value is not None and (found.high - found.low) / 2 <= margin:
        wanted = max(found.value + margin, -found.value)

    def enough(further: float) -> bool:
        ours, theirs = new.n + further * share * per_request, old.n + further * (1 - share) * per_request
        return half_width(1 / (new.variance / ours + old.variance / theirs), margin, alpha) <= wanted

    low, high = 0.0, 1.0
    while not enough(high):
        low, high = high, high * 2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return ceil(high)


def _variance(new: Arm, old: Arm, margin: float) -> float:
    """Of the difference of means: the largest of that which was seen (Wald) and those that there would be if the
    difference were 0, the margin or its opposite (score).

    Each alone is too small on one side where rates are near 0 or 1 and one arm is much larger than the other.
    """
    n1, n0 = new.n, old.n
    m1, m0 = (new.total + 1) / (n1 + 2), (old.total + 1) / (n0 + 2)
    v1, v0 = (new.squares + 1) / (n1 + 2) - m1 * m1, (old.squares + 1) / (n0 + 2) - m0 * m0
    # Scores between 0 and 1 vary less than yes and no do; 1 for yes and no.
    scale = (n1 * v1 + n0 * v0) / (n1 * m1 * (1 - m1) + n0 * m0 * (1 - m0))
    pooled = (new.total + old.total + 1) / (n1 + n0 + 2)
    shift = margin * n1 / (n1 + n0)
    return max(
        v1 / n1 + v0 / n0,
        scale * _of_rates(pooled, 0.0, n1, n0),
        scale * _of_rates(pooled - shift, margin, n1, n0),
        scale * _of_rates(pooled + shift, -margin, n1, n0),
    )


def _of_rates(old: float, difference: float, n1: float, n0: float) -> float:
    """Where the old rate is about ``old`` and the new one differs by exactly so much; neither leaves [0, 1]."""
    least, most = (0.0, 1.0 - difference) if difference > 0 else (-difference, 1.0)
    if old < least:  # min and max would take half of the time of a look
        old = least
    elif old > most:
        old = most
    new = old + difference
    return new * (1 - new) / n1 + old * (1 - old) / n0
