"""Interactions and feedback as they are written to the journal, and found again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from treadle.core.journal import Journal
from treadle.core.keys import Keys
from treadle.core.ledger import Ledger
from treadle.record.case import Case
from treadle.record.feedback import Feedback
from treadle.record.interaction import IMPORTED, Interaction

INTERACTIONS = "interactions"
FEEDBACK = "feedback"
CASES = "cases"
_LATE = 10_000  # rows are written when an answer ends, and by several processes: so far out of order at most
_RECENT = 2_000  # interactions kept at hand; feedback is mostly about these
_RECENT_CHARACTERS = 16 << 20  # of their texts


class JournalRecorder:
    """Appends to the journal; interactions it wrote or found lately are answered from memory."""

    def __init__(self, journal: Journal, keys: Keys, ledger: Ledger) -> None:
        self._journal = journal
        self._keys = keys
        self._ledger = ledger
        self._recent = _Recent()
        self._erasure = 0  # the last row about one that is taken into account

    def interaction(self, row: Interaction) -> None:
        """Append one interaction."""
        self._journal.append(INTERACTIONS, row.to_dict())
        self._recent.keep(row)

    def feedback(self, row: Feedback) -> None:
        """Append one piece of feedback."""
        self._journal.append(FEEDBACK, row.to_dict())

    def find_interaction(self, interaction: str) -> Interaction | None:
        """The row with that id; None when there never was one, or it was erased."""
        self.let_go()
        recent = self._recent  # after an erasure there is another one in its place
        found = recent.get(interaction)
        if found is not None:
            return found
        row = self._journal.find(INTERACTIONS, interaction)
        if not row or row.get("erased"):
            return None
        return recent.keep(Interaction.from_dict(row))

    def feedback_on(self, interaction: str) -> Sequence[Feedback]:
        """What was said of an interaction so far, oldest first."""
        return tuple(Feedback.from_dict(row) for row in self._journal.about(FEEDBACK, "interaction", interaction))

    def interactions(self, release: str | None = None) -> Iterator[Interaction]:
        """Every interaction, oldest first, or those that one release gave."""
        for row in self._journal.read(INTERACTIONS):
            if not row.get("erased") and (release is None or row["release"] == release):
                yield Interaction.from_dict(row)

    def interactions_since(self, moment: str) -> Iterator[Interaction]:
        """Interactions that arrived at or after a time (ISO 8601, UTC), newest first."""
        before = 0
        for row in self._journal.read(INTERACTIONS, newest_first=True):
            if row["time"] >= moment:
                before = 0
                if not row.get("erased"):
                    yield Interaction.from_dict(row)
                continue
            before += row.get("origin") != IMPORTED  # old rows that were written late, however many
            if before > _LATE:
                return

    def all_feedback(self) -> Iterator[Feedback]:
        """All feedback, oldest first."""
        return (Feedback.from_dict(row) for row in self._journal.read(FEEDBACK))

    def feedback_since(self, moment: str) -> Iterator[Feedback]:
        """Feedback given at or after a time (ISO 8601, UTC), oldest first; what is older is hardly read."""
        rows = self._journal.read(FEEDBACK, since=moment)
        return (Feedback.from_dict(row) for row in rows if row["time"] >= moment)

    def case(self, row: Case) -> None:
        """Append one test case."""
        self._journal.append(CASES, row.to_dict())

    def cases(self) -> Iterator[Case]:
        """All test cases, oldest first."""
        return (Case.from_dict(row) for row in self._journal.read(CASES))

    def keyed(self, person: str) -> str:
        """The keyed digest a person is recorded by."""
        return self._keys.keyed_person(person)

    def keyed_text(self, text: str) -> str:
        """The keyed digest a piece of given context is recorded by."""
        return self._keys.keyed("text", text)

    def let_go(self) -> None:
        """Keep nothing at hand from before an erasure; another process may have carried it out."""
        sql = "SELECT coalesce(max(seq), 0) FROM ledger WHERE kind = 'erasure'"
        latest = int(self._ledger.database.query(sql)[0][0])
        if latest != self._erasure:
            self._erasure = latest
            self._recent = _Recent()


class _Recent:
    """The interactions at hand, those that came last."""

    def __init__(self) -> None:
        self._rows: OrderedDict[str, Interaction] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def get(self, interaction: str) -> Interaction | None:
        return self._rows.get(interaction)

    def keep(self, row: Interaction) -> Interaction:
        with self._lock:
            before = self._rows.pop(row.id, None)
            self._rows[row.id] = row
            self._characters += _characters(row) - (_characters(before) if before else 0)
            while self._rows and (len(self._rows) > _RECENT or self._characters > _RECENT_CHARACTERS):
                self._characters -= _characters(self._rows.popitem(last=False)[1])
        return row

    def clear(self) -> None:
        with self._lock:
            self._rows.clear()
            self._characters = 0


def _characters(row: Interaction) -> int:
    texts = [row.answer or "", *row.alternatives, *(given.text or "" for given in row.given)]
    return sum(map(len, texts)) + sum(len(message["content"]) for message in row.messages or ())
