"""What a list of interactions is asked for, and what it shows of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from treadle.core.errors import UserError
from treadle.record.index_file import SPREAD

END = (1 << 63) - 1  # beyond every key

Origin = Literal["traffic", "smoke", "shadow"]
ORIGINS: dict[Origin, int] = {"traffic": 0, "smoke": 1, "shadow": 2}  # as facets.smoke has them
Rating = Literal["up", "down", "corrected", "rated", "unrated"]
_RATINGS = {
    "up": "thumbs = 1",
    "down": "thumbs = 0",
    "corrected": "corrected = 1",
    "rated": "rated = 1",
    "unrated": "rated = 0",
}
COLUMNS = (
    "i.key, i.id, f.release, f.model, f.endpoint, f.status, p.digest, i.prompt, i.completion, i.seconds, i.ttft, "
    "f.thumbs, i.score, f.corrected, f.commented, f.is_case, f.stored, f.smoke, i.confidence"
)


@dataclass(frozen=True, slots=True)
class InteractionRow:
    """One interaction in a list. ``time`` is ISO 8601 in UTC, to the millisecond; ``seconds`` and ``ttft`` in seconds;
    ``user`` a keyed digest; ``confidence`` the least of its labels'.

    ``thumbs`` (1 or 0) and ``score`` are the last ones given; what was taken back does not count. ``stored``: its text
    is kept. ``case``: it was made a test case. Neither ``smoke`` (a question to a new release) nor ``shadow`` (a copy
    that nobody was shown) is traffic.
    """

    id: str
    time: str
    release: str
    model: str
    endpoint: str
    status: str
    user: str | None
    tokens_prompt: int
    tokens_completion: int
    seconds: float
    ttft: float | None
    thumbs: float | None
    score: float | None
    corrected: bool
    commented: bool
    case: bool
    stored: bool
    smoke: bool
    confidence: float | None
    shadow: bool = False

    @classmethod
    def of(cls, key: int, identifier: str, *values: Any) -> InteractionRow:
        """From `COLUMNS` of the index."""
        release, model, endpoint, status, user, prompt, completion, seconds, ttft, *said = values
        thumbs, score, corrected, commented, case, stored, smoke, confidence = said
        return cls(
            id=identifier,
            time=iso(key // SPREAD),
            release=release,
            model=model,
            endpoint=endpoint,
            status=status,
            user=user,
            tokens_prompt=prompt,
            tokens_completion=completion,
            seconds=seconds or 0.0,
            ttft=ttft,
            thumbs=None if thumbs < 0 else float(thumbs),
            score=score,
            corrected=bool(corrected),
            commented=bool(commented),
            case=bool(case),
            stored=bool(stored),
            smoke=smoke == ORIGINS["smoke"],
            confidence=confidence,
            shadow=smoke == ORIGINS["shadow"],
        )


@dataclass(frozen=True, slots=True)
class InteractionFilter:
    """All that is given must hold. ``release`` may be several digests, ``user`` is a keyed digest; ``since`` (from then
    on) and ``until`` (before) are in ISO 8601, UTC where they do not say; ``text`` is looked for in what is stored, in
    any case of letters. ``origin``: what users asked, what a new release was tried with, or what a shadow got."""

    release: str | tuple[str, ...] | None = None
    model: str | None = None
    status: str | None = None
    rating: Rating | None = None
    user: str | None = None
    since: str | None = None
    until: str | None = None
    text: str | None = None
    origin: Origin | None = None

    def facets(self) -> tuple[str, list[Any]]:
        """The condition on the table of facets, and its values."""
        given = {"model": self.model, "status": self.status}
        given["smoke"] = None if self.origin is None else str(ORIGINS[self.origin])
        wanted = {name: value for name, value in given.items() if value is not None}
        said = [f"{name} = ?" for name in wanted] + ["erased = 0"]
        values: list[Any] = list(wanted.values())
        if self.release is not None:
            releases = (self.release,) if isinstance(self.release, str) else self.release
            said.append("release IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(releases))
        if self.rating is not None:
            if self.rating not in _RATINGS:
                raise UserError(f"rating {self.rating[:40]!r}: expected one of {', '.join(_RATINGS)}")
            said.append(_RATINGS[self.rating])
        if self.text:
            said.append("stored = 1")
        return " AND ".join(said), values

    def span(self) -> tuple[int, int]:
        """The keys it reaches from and to."""
        low, high = 0, END
        if self.since:
            low = _bound("since", self.since)
        if self.until:
            high = _bound("until", self.until)
        return low, high


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, newest first. ``next`` continues after them (None: there are no more); ``searched`` says how many
    texts were looked at, where a text was asked for."""

    rows: tuple[InteractionRow, ...]
    next: str | None
    searched: int | None = None


def moment(text: str) -> int:
    """Whole milliseconds since 1970 of a time in ISO 8601, UTC unless it says otherwise; ``ValueError``."""
    found = datetime.fromisoformat(text)
    since = (found if found.tzinfo else found.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def iso(millis: int) -> str:
    """A time as ISO 8601 in UTC."""
    seconds, rest = divmod(millis, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03}Z"


def _bound(name: str, text: str) -> int:
    try:
        return min(max(moment(text), 0) * SPREAD, END)
    except (ValueError, OverflowError):
        raise UserError(f"{name} {text[:40]!r}: expected a time such as 2026-01-31 or 2026-01-31T12:00:00Z") from None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
