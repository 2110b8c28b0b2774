"""A test case: a question and the answer a person wants to it, kept to judge every later version by."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from treadle.core.errors import Corrupt
from treadle.core.identifiers import new_id

FORMAT = 1  # of the row that `to_dict` writes; later numbers only add keys


def new_case_id() -> str:
    """``case-`` and a ULID: sorts by time."""
    return new_id("case")


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the journal. ``messages`` ends with the question, ``reference`` is the answer (or the label) that is
    wanted; ``interaction`` is where it came from; ``user`` the keyed digest of who made it a case."""

    id: str
    interaction: str
    time: str
    messages: tuple[dict[str, str], ...] = ()
    reference: str | None = None
    user: str | None = None
    source: Literal["console", "cli"] = "console"
    erased: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON can carry it, with the number of its format."""
        row: dict[str, Any] = {"format": FORMAT} | {name: getattr(self, name) for name in _NAMES}
        row["messages"] = [dict(message) for message in self.messages]
        return row

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Case:
        """Read what `to_dict` wrote; keys of later formats are passed over. Raises ``Corrupt``."""
        known = {name: row[name] for name in _NAMES if name in row}
        try:
            return cls(**{**known, "messages": tuple(known.get("messages") or ())})
        except TypeError as error:
            raise Corrupt(f"not a test case: {error}; run: treadle verify") from error


_NAMES = tuple(f.name for f in fields(Case))
