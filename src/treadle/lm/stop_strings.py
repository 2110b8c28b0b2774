"""Ending an answer at a stop string, in text that is still arriving.

Engines stop at whole tokens and leave the rest of the last one standing; here the text ends exactly before the stop
string, and nothing that may turn out to begin one is given away early.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """For one answer: ``push`` and ``finish`` together give the text up to the stop string that is whole first."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        """The text that is certain by now. After a hit, nothing more."""
        if not self._stops:
            return text
        if self.hit:
            return ""
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:  # the one that is whole first counts, so that it does not matter how the text was cut
            self.hit, self._held = True, ""
            return text[: min(found)[1]]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back, once it is known that nothing follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``, the whole of it excepted."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
