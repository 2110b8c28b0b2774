"""The project's rules for what comes in: how text is kept, for how long, and who was erased and stays out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from treadle.project import Project
from treadle.text.suppress import Matcher, Suppression

FUTURE = "its time is more than a day ahead of this machine's clock; set either right"
_AHEAD = timedelta(days=1)  # clocks differ, and a time without an offset is taken for UTC


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC, to the millisecond, as the server writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class Admission:
    """Applies ``monitor.record``, ``monitor.retention`` and the suppression list to rows from elsewhere."""

    def __init__(self, project: Project) -> None:
        self.recording = project.file.monitor.recording(project.file.govern.purpose)
        self._keyed = project.record.recorder.keyed
        listed = project.record.erasures.suppression()
        entries = listed.suppressed() if listed is not None else {}
        self._entries = frozenset(entries)
        windows = tuple(sorted({words for words in entries.values() if words}))
        self._matcher = Matcher(Suppression(self._entries, windows), self._keyed) if entries else None
        self._clean = _cleaner(self.recording.mode)
        self._latest = datetime.now(UTC) + _AHEAD

    def person(self, name: str | None) -> str | None:
        """The keyed digest that stands for a person."""
        return self._keyed(name) if name else None

    def erased(self, person: str | None, *texts: str | None) -> bool:
        """Whether this is about somebody whose erasure was asked for."""
        if self._matcher is None:
            return False
        return person in self._entries or any(text and self._matcher.names_somebody(text) for text in texts)

    def clean(self, text: str) -> str:
        """The text as it may be kept; only asked where text is kept at all."""
        return self._clean(text)

    @property
    def keeps_text(self) -> bool:
        """Whether any text is kept."""
        return self.recording.mode != "none"

    def is_future(self, moment: datetime) -> bool:
        """Whether nothing can have happened then yet. Such a row would be newer than every turn, and kept for ages."""
        return moment > self._latest

    def until(self, moment: datetime) -> datetime | None:
        """How long a row of that time may be kept; None for ever."""
        seconds = self.recording.retention
        if seconds is None:
            return None
        try:
            return moment + timedelta(seconds=seconds)
        except OverflowError:
            return None


def _cleaner(mode: str) -> Callable[[str], str]:
    if mode != "redacted":
        return lambda text: text
    from treadle.text.personal_data import redact

    return redact
