"""Personal data with a recognizable form: found, redacted, masked for display.

Each text is scanned once by all patterns together (RE2's set matching), and only what then matched is looked
at closer. Names and addresses have no form and are not found here. Nothing in this module logs or raises what
it found.
"""

from __future__ import annotations

import functools
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from treadle.core.errors import MissingExtra, UserError, nearest
from treadle.text.detectors import DETECTORS, Check

_MOST_PASSES = 10  # of redacting
_EXCERPT_MARGIN = 96  # characters; longer than any finding, so an excerpt never ends inside one

KINDS: tuple[str, ...] = tuple(detector.kind for detector in DETECTORS)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Characters ``start`` to ``end`` (half open) of a text are of this kind."""

    start: int
    end: int
    kind: str


class Scanner:
    """The compiled patterns of some kinds. Make one and use it for many texts."""

    def __init__(self, kinds: Sequence[str] = KINDS) -> None:
        """``MissingExtra`` without google-re2, ``UserError`` for an unknown kind."""
        re2 = _re2()
        for kind in kinds:
            if kind not in KINDS:
                raise UserError(f"there is no kind of personal data called {kind!r};{nearest(kind, KINDS)}")
        self._detectors = [detector for detector in DETECTORS if detector.kind in kinds]
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1  # patterns and texts are UTF-8 bytes
        self._set = re2.Set.SearchSet(options)
        for detector in self._detectors:
            self._set.Add(detector.hint)
        self._set.Compile()
        self._patterns = [re2.compile(detector.pattern) for detector in self._detectors]

    def find(self, text: str) -> list[Finding]:
        """Findings by position, none overlapping another; positions count characters."""
        data = text.encode("utf-8", "surrogatepass")
        matched = self._set.Match(data)
        if not matched:
            return []
        spans: list[tuple[int, int, str]] = []  # sorted
        for number in sorted(matched):
            detector = self._detectors[number]
            for place in _places(self._patterns[number], detector.check, data):
                index = bisect(spans, (*place, ""))
                free_before = index == 0 or spans[index - 1][1] <= place[0]
                if free_before and (index == len(spans) or place[1] <= spans[index][0]):
                    spans.insert(index, (*place, detector.kind))
        if len(data) == len(text):
            return [Finding(*span) for span in spans]
        return list(_in_characters(data, spans))

    def redact(self, text: str) -> tuple[str, Counter[str]]:
        """The text with each finding replaced by its kind, as in ``[EMAIL]``, and how many there were of each
        kind.

        Doing it twice changes nothing: what a replacement brings within reach of a word such as phone is
        looked at again.
        """
        counts: Counter[str] = Counter()
        for _ in range(_MOST_PASSES):
            findings = self.find(text)
            if not findings:
                break
            counts.update(finding.kind for finding in findings)
            text = _replaced(text, findings)
        return text, counts


@functools.lru_cache(maxsize=32)
def scanner(kinds: tuple[str, ...] = KINDS) -> Scanner:
    """A scanner for these kinds, compiled once in a process."""
    return Scanner(kinds)


def find(text: str, kinds: Iterable[str] = KINDS) -> list[Finding]:
    """Findings of these kinds in one text."""
    return scanner(tuple(kinds)).find(text)


def redact(text: str, kinds: Iterable[str] = KINDS) -> str:
    """The text with findings of these kinds replaced by ``[KIND]``."""
    return scanner(tuple(kinds)).redact(text)[0]


def mask(text: str) -> str:
    """The text as it may be shown: every kind replaced."""
    return redact(text)


def excerpt(text: str, length: int) -> str:
    """At most ``length`` characters from the start, masked, with an ellipsis where it was cut."""
    window = text[: length + _EXCERPT_MARGIN]
    masked = mask(window)
    if len(window) < len(text):  # a finding that the window cuts in two lies in its last characters
        masked = masked[: max(0, len(masked) - _EXCERPT_MARGIN)]
    shown = masked[:length]
    return shown if len(shown) == len(masked) and len(window) == len(text) else shown + "…"


def _places(pattern: Any, check: Check, data: bytes) -> Iterator[tuple[int, int]]:
    """Where candidates pass the check. Searching goes on after what was found, so two numbers in a row are
    two.
    """
    position = 0
    while match := pattern.search(data, position):
        start, end = match.span()
        place = check(data, start, end)
        if place:
            yield place
        position = place[1] if place else end


def _replaced(text: str, findings: Sequence[Finding]) -> str:
    parts, position = [], 0
    for finding in findings:
        parts += [text[position : finding.start], f"[{finding.kind.upper()}]"]
        position = finding.end
    return "".join([*parts, text[position:]])


def _in_characters(data: bytes, spans: list[tuple[int, int, str]]) -> Iterator[Finding]:
    """Byte positions as character positions, in one pass."""
    position = characters = 0
    for start, end, kind in spans:
        first = characters + len(data[position:start].decode("utf-8", "surrogatepass"))
        characters = first + len(data[start:end].decode("utf-8", "surrogatepass"))
        position = end
        yield Finding(first, characters, kind)


def _re2() -> Any:
    try:
        import re2
    except ImportError:
        raise MissingExtra("google-re2", extra="data") from None
    return re2
