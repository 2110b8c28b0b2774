"""Feedback: what a person, a judge or an outcome said of an interaction."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, fields
from typing import Any, Literal

from treadle.core.errors import Corrupt
from treadle.core.identifiers import new_id

FORMAT = 1  # of the row that `to_dict` writes; later numbers only add keys

Kind = Literal["thumbs", "score", "correction", "preference"]
FeedbackSource = Literal["api", "cli", "console", "import"]
UNSEEN = "there is no character in it that can be seen"
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters and a symbol, by their category, that show nothing


def new_feedback_id() -> str:
    """``fb-`` and a ULID: sorts by time."""
    return new_id("fb")


def can_be_seen(text: str) -> bool:
    """Whether there is anything to read in a text: no correction is made of spaces, controls and lone marks."""
    return any(unicodedata.category(char)[0] not in "CMZ" and char not in _BLANK for char in text)


@dataclass(frozen=True, slots=True)
class Feedback:
    """One row of the journal. ``time`` is ISO 8601 in UTC; ``user`` a keyed digest.

    ``value`` is 1 or 0 for thumbs up or down, 0 to 1 for a score, for a preference the position of the choice that
    was preferred, and ``None`` for a correction. ``correction`` and ``comment`` follow the rules for text: redacted
    unless the project records in full. ``erased`` marks a row whose text was taken out.
    """

    id: str
    interaction: str
    time: str
    kind: Kind
    value: float | None = None
    correction: str | None = None
    comment: str | None = None
    user: str | None = None
    source: FeedbackSource = "api"
    erased: bool = False

    def says_the_same(self, other: Feedback) -> bool:
        """True when only the id, the time and the way it came differ."""
        mine = (self.interaction, self.kind, self.value, self.correction, self.comment, self.user)
        return mine == (
            other.interaction,
            other.kind,
            other.value,
            other.correction,
            other.comment,
            other.user,
        )

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON can carry it, with the number of its format."""
        return {"format": FORMAT} | {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Feedback:
        """Read what `to_dict` wrote; keys of later formats are passed over. Raises ``Corrupt``."""
        try:
            return cls(**{name: row[name] for name in _NAMES if name in row})
        except TypeError as error:
            raise Corrupt(f"not a row of feedback: {error}; run: treadle verify") from error


_NAMES = tuple(f.name for f in fields(Feedback))
