"""The two arms of a canary: what came of the requests that were drawn for the new release and for the champion.

Only requests that were drawn by lot count. The lot falls on people where requests name them, so the answers to one
person hang together (`Groups`). Nobody steers an arm by votes: of what one person rates, ten answers in each arm
count, the first ten. Were it the latest ten, the mean would go on wandering for as long as people vote, and a test
that is looked at all the time would be wrong about every tenth canary.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import nsmallest

from treadle.evals.sequential import Groups
from treadle.record.canary import Canary
from treadle.record.feedback import Feedback
from treadle.record.interaction import Interaction, is_smoke

RATED_OF_ONE = 10  # answers of one person that count in each arm
SLACK = 1.25  # slow is what takes longer than this times the champion's 95th percentile
_PERCENTILE = 0.95
_FEW = 20  # of the champion's times, for a percentile

Moment = tuple[datetime, str]  # a time and an id: an order without ties


def moment(text: str) -> datetime:
    """ISO 8601; UTC where nothing is said."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@dataclass
class Times:
    """Seconds, and whom each answer was for."""

    seconds: array[float] = field(default_factory=lambda: array("d"))
    people: array[int] = field(default_factory=lambda: array("q"))

    def add(self, seconds: float, person: int | None) -> None:
        """One more answer's."""
        self.seconds.append(seconds)
        self.people.append(-1 if person is None else person)

    def quantile(self, share: float) -> float | None:
        """By nearest rank; None without any."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None

    def beyond(self, limit: float) -> Groups:
        """1 for what took longer, 0 for the rest."""
        found = Groups()
        for seconds, person in zip(self.seconds, self.people, strict=True):
            found.add(float(seconds > limit), None if person < 0 else person)
        return found


@dataclass
class Side:
    """One arm. ``failed`` and ``empty`` hold 1 for a bad answer; ``first_token`` and ``slow`` seconds, ``slow`` those
    for each token after the first; ``ratings`` from 0 to 1."""

    n: int = 0
    failed: Groups = field(default_factory=Groups)
    empty: Groups = field(default_factory=Groups)
    first_token: Times = field(default_factory=Times)
    slow: Times = field(default_factory=Times)
    ratings: Groups = field(default_factory=Groups)

    def add(self, row: Interaction, person: int | None) -> None:
        """One request more. One that its client gave up is nobody's fault."""
        self.n += 1
        if row.status != "cancelled":
            self.failed.add(float(row.status == "failed"), person)
        if row.status != "ok":
            return
        if row.answer is not None:
            self.empty.add(float(not row.answer.strip()), person)
        first, tokens, total = row.seconds.ttft, row.tokens.completion, row.seconds.total
        if first is None:
            self.slow.add(total / max(1, tokens), person)
            return
        self.first_token.add(first, person)
        if tokens > 1:  # else short answers would count as slow ones: they wait for their first token too
            self.slow.add((total - first) / (tokens - 1), person)


@dataclass
class Arms:
    """Both sides, and how many requests were drawn for either since the present step began."""

    new: Side = field(default_factory=Side)
    champion: Side = field(default_factory=Side)
    step: int = 0

    @property
    def total(self) -> int:
        """Requests drawn for either."""
        return self.new.n + self.champion.n

    def limit(self, name: str) -> float | None:
        """Seconds beyond which an answer is slow; None while too little is known of the champion, or it takes none."""
        times: Times = getattr(self.champion, name)
        usual = times.quantile(_PERCENTILE) if len(times.seconds) >= _FEW else None
        return SLACK * usual if usual else None


def arms(canary: Canary, interactions: Iterable[Interaction], feedback: Iterable[Feedback]) -> Arms:
    """One pass over both, in any order; nothing from before the canary counts."""
    begun, step_begun = moment(canary.begun), moment(canary.step_begun)
    said = _said(begun, feedback)
    found = Arms()
    sides = {canary.release: found.new, canary.champion: found.champion}
    rated: dict[str, list[_Rated]] = {release: [] for release in sides}
    people: dict[str, int] = {}
    for row in interactions:
        side = sides.get(row.release)
        if side is None or not _drawn(row):
            continue
        arrived = moment(row.time)
        if arrived < begun:
            continue
        person = None if row.user is None else people.setdefault(row.user, len(people))
        side.add(row, person)
        found.step += arrived >= step_begun
        for rater, opinion in said.pop(row.id, {}).items():
            name = rater or row.user or row.key or ""
            group = people.setdefault(row.user or name, len(people))
            rated[row.release].append(_Rated(row.id, name, group, opinion))
    for release, side in sides.items():
        _rate(side.ratings, rated[release])
    return found


def _drawn(row: Interaction) -> bool:
    """By lot between the two; 1 is the champion's share before the canary's server has it ready."""
    return row.share is not None and row.share < 1 and not is_smoke(row.metadata)


@dataclass(slots=True)
class _Opinion:
    """One person's of one answer: when it was first said, and the latest rating; a correction says 0 by itself."""

    first: Moment
    last: Moment | None = None
    value: float = 0.0

    def hear(self, when: Moment, value: float | None) -> None:
        self.first = min(self.first, when)
        if value is not None and (self.last is None or when > self.last):
            self.last, self.value = when, value


@dataclass(frozen=True, slots=True)
class _Rated:
    interaction: str
    rater: str
    group: int
    opinion: _Opinion


def _said(begun: datetime, feedback: Iterable[Feedback]) -> dict[str, dict[str | None, _Opinion]]:
    """Opinions by interaction and person, however often they were repeated or changed."""
    found: dict[str, dict[str | None, _Opinion]] = {}
    for row in feedback:
        value = row.value if row.kind in ("thumbs", "score") else None
        valid = value is not None and 0 <= value <= 1
        if not valid and row.kind != "correction":
            continue
        when = moment(row.time)
        if when >= begun:
            opinion = found.setdefault(row.interaction, {}).setdefault(row.user, _Opinion((when, row.id)))
            opinion.hear((when, row.id), value)
    return found


def _rate(ratings: Groups, rated: Iterable[_Rated]) -> None:
    """The first answers that each person rated; several opinions of one answer are one value, their mean."""
    by_rater: dict[str, list[_Rated]] = {}
    for each in rated:
        by_rater.setdefault(each.rater, []).append(each)
    values: dict[str, list[_Rated]] = {}
    for theirs in by_rater.values():
        for each in nsmallest(RATED_OF_ONE, theirs, key=lambda one: one.opinion.first):
            values.setdefault(each.interaction, []).append(each)
    for opinions in values.values():
        group = min(opinions, key=lambda one: one.opinion.first).group
        ratings.add(sum(each.opinion.value for each in opinions) / len(opinions), group)
