"""What the gateway needs from the record. The stages hand it in; the server itself opens no store and no database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from treadle.record.feedback import Feedback
from treadle.record.interaction import Interaction


class Recorder(Protocol):
    """What writes is called from the event loop, so it must be quick: a write to the journal's segment, no sync. What
    finds may read files; it is called in a thread."""

    def interaction(self, row: Interaction) -> None:
        """Append one interaction; once this returns, `find_interaction` knows it."""
        ...

    def feedback(self, row: Feedback) -> None:
        """Append one piece of feedback; once this returns, `feedback_on` knows it."""
        ...

    def find_interaction(self, interaction: str) -> Interaction | None:
        """The row with that id, ``None`` when there never was one or it was erased."""
        ...

    def feedback_on(self, interaction: str) -> Sequence[Feedback]:
        """What was said of that interaction so far, oldest first."""
        ...

    def keyed(self, person: str) -> str:
        """The keyed digest a person is recorded by."""
        ...

    def keyed_text(self, text: str) -> str:
        """The keyed digest a piece of given context is recorded by."""
        ...
