"""Interactions and feedback as they are written to the journal, and found again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from treadle.core.journal import Journal
from treadle.core.keys import Keys
from treadle.record.case import Case
from treadle.record.feedback import Feedback
from treadle.record.interaction import Interaction

INTERACTIONS = "interactions"
FEEDBACK = "feedback"
CASES = "cases"
_RECENT = 2_000  # interactions kept at hand; feedback is mostly about these


class JournalRecorder:
    """Appends to the journal; what it wrote lately is answered from memory."""

    def __init__(self, journal: Journal, keys: Keys) -> None:
        self._journal = journal
        self._keys = keys
        self._recent: OrderedDict[str, Interaction] = OrderedDict()
        self._feedback: dict[str, list[Feedback]] | None = None

    def interaction(self, row: Interaction) -> None:
        """Append one interaction."""
        self._journal.append(INTERACTIONS, row.to_dict())
        self._recent[row.id] = row
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    def feedback(self, row: Feedback) -> None:
        """Append one piece of feedback."""
        known = self._known_feedback()  # first, so that the new row is not read back as well
        self._journal.append(FEEDBACK, row.to_dict())
        known.setdefault(row.interaction, []).append(row)

    def find_interaction(self, interaction: str) -> Interaction | None:
        """The row with that id; None when there never was one, or it was erased."""
        recent = self._recent.get(interaction)
        if recent is not None:
            return recent
        row = self._journal.find(INTERACTIONS, interaction)
        return Interaction.from_dict(row) if row and not row.get("erased") else None

    def feedback_on(self, interaction: str) -> Sequence[Feedback]:
        """What was said of an interaction so far, oldest first."""
        return tuple(self._known_feedback().get(interaction, ()))

    def interactions(self, release: str | None = None) -> Iterator[Interaction]:
        """Every interaction, oldest first, or those that one release gave."""
        for row in self._journal.read(INTERACTIONS):
            if not row.get("erased") and (release is None or row["release"] == release):
                yield Interaction.from_dict(row)

    def all_feedback(self) -> Iterator[Feedback]:
        """All feedback, oldest first."""
        return (Feedback.from_dict(row) for row in self._journal.read(FEEDBACK))

    def case(self, row: Case) -> None:
        """Append one test case."""
        self._journal.append(CASES, row.to_dict())

    def cases(self) -> Iterator[Case]:
        """All test cases, oldest first."""
        return (Case.from_dict(row) for row in self._journal.read(CASES))

    def keyed(self, person: str) -> str:
        """The keyed digest a person is recorded by."""
        return self._keys.keyed("subject", person)

    def keyed_text(self, text: str) -> str:
        """The keyed digest a piece of given context is recorded by."""
        return self._keys.keyed("text", text)

    def _known_feedback(self) -> dict[str, list[Feedback]]:
        if self._feedback is None:
            self._feedback = {}
            for row in self.all_feedback():
                self._feedback.setdefault(row.interaction, []).append(row)
        return self._feedback
