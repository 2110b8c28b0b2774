"""Personal data with a recognizable form: found, redacted, masked for display.

Each text is scanned once by all patterns together (RE2's set matching), and only what then matched is looked
at closer. Names and addresses have no form and are not found here. Nothing in this module logs or raises what
it found.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from treadle.core.errors import MissingExtra, UserError, nearest
from treadle.text.candidate_checks import Check
from treadle.text.context_words import LANGUAGES
from treadle.text.detectors import DETECTORS, RULES, detectors
from treadle.text.escapes import merged, readings, unwrapped
from treadle.text.surroundings import LOOK_BACK

_MOST_PASSES = 10  # of redacting
_MARKS = "".join(map(chr, range(0xFDD0, 0xFDF0)))  # characters that no text has: each stands for a stand-in
KINDS: tuple[str, ...] = tuple(RULES)
_LABEL = re.compile(r"\[(?:" + "|".join(kind.upper() for kind in KINDS) + r")\]")
_ESCAPED = re.compile(r'[\x00-\x1f"\\]+')  # what JSON has escapes for
# Spaces and hyphens that keep a line together or are set by typography, and full-width forms: as those that are typed.
_SPACES = "\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000"
_HYPHENS = "\u2010\u2011\u2012\u2013\u2212"
_WIDE = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_WIDE_HINTS = "\uff20\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19"  # the sign of addresses, and digits
_SHOWN_AROUND = 60  # characters of a sample on each side of what was found
_SEARCHED = 50_000  # characters of a text in which a sample is looked for
_EXCERPT_MARGIN = 96  # characters; longer than any finding, so an excerpt never ends inside one


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Characters ``start`` to ``end`` (half open) of a text are of this kind."""

    start: int
    end: int
    kind: str


# What stands in for a finding, from its kind and value; None for the name of its kind.
StandIn = Callable[[str, str], "str | None"]


class Scanner:
    """The compiled patterns of some kinds. Make one and use it for many texts."""

    def __init__(
        self, kinds: Sequence[str] = KINDS, *, languages: Sequence[str] = LANGUAGES, window: int = LOOK_BACK
    ) -> None:
        """``languages`` are those whose context words count, within ``window`` bytes before a finding.

        ``MissingExtra`` without google-re2, ``UserError`` for an unknown kind or language.
        """
        re2 = _re2()
        for kind in kinds:
            if kind not in KINDS:
                raise UserError(f"there is no kind of personal data called {kind!r};{nearest(kind, KINDS)}")
        usual = tuple(languages) == LANGUAGES and window == LOOK_BACK
        known = DETECTORS if usual else detectors(languages, window)
        self._detectors = [detector for detector in known if detector.kind in kinds]
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1  # patterns and texts are UTF-8 bytes
        self._set = re2.Set.SearchSet(options)
        for detector in self._detectors:
            self._set.Add(detector.hint)
        self._set.Compile()
        self._patterns = [re2.compile(detector.pattern) for detector in self._detectors]

    def find(self, text: str) -> list[Finding]:
        """Findings by position, none overlapping another; positions count characters.

        JSON inside a text (the arguments of a call, say) is looked at as what it stands for too: there a number at the
        beginning of a line is ``\\n49 ...``, one word. So are URLs (``%40``), HTML (``&#64;``), and words that have
        characters in them that nobody sees.
        """
        found = self.find_as_written(text)
        if text.isascii() and not ("\\" in text or "%" in text or "&" in text):  # most, and asked for with each request
            return found
        for shown, places in chain(readings(text), unwrapped(text)):
            read = [Finding(places[each.start], places[each.end], each.kind) for each in self.find_as_written(shown)]
            if read:
                found = merged(found, read, places)
        return found

    def find_as_written(self, text: str) -> list[Finding]:
        """As `find`, escapes as they stand. How spaces, hyphens and wide letters are set makes no difference."""
        data = _plain(text).encode("utf-8", "surrogatepass")
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
        text, found = self.rewrite(text, lambda _kind, _value: None)
        return text, Counter(kind for kind, _ in found)

    def rewrite(self, text: str, stand_in: StandIn) -> tuple[str, list[tuple[str, str]]]:
        """The text with each finding replaced by what ``stand_in`` makes of it, or by its kind where that is None;
        and the findings, kind and value. A stand-in is not looked at again.
        """
        found: list[tuple[str, str]] = []
        made: list[str] = []
        mark = next((sign for sign in _MARKS if sign not in text), "")
        for _ in range(_MOST_PASSES):
            findings = self.find(text)
            if not findings:
                break
            found += [(each.kind, value_of(each, text).replace(mark, "")) for each in findings]
            text, made = _marked(text, findings, stand_in, mark, made)
        if not made:
            return text, found
        pieces = text.split(mark)
        return "".join(piece + each for piece, each in zip(pieces, [*made, ""], strict=True)), found


def value_of(finding: Finding, text: str) -> str:
    """What was found as it is usually written, escapes read as what they stand for."""
    value = text[finding.start : finding.end]
    for shown, _ in readings(value, quoted=True):
        value = shown
    for shown, _ in unwrapped(value):
        value = shown
    return _plain(value)


def _plain(text: str) -> str:
    """The text, each character that is set in another way in its usual one. Replacing one after the other is many times
    as fast as looking at each."""
    if text.isascii():
        return text
    for space in _SPACES:
        text = text.replace(space, " ")
    for hyphen in _HYPHENS:
        text = text.replace(hyphen, "-")
    return text.translate(_WIDE) if any(hint in text for hint in _WIDE_HINTS) else text


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


def sample(text: str, kind: str) -> str:
    """A little of the text around the first finding of a kind, which is replaced like all others. Words with a capital
    letter or a digit, which may be names, are hidden.
    """
    masked = mask(text[:_SEARCHED])
    label = f"[{kind.upper()}]"
    place = masked.find(label)
    if place < 0:
        return label
    before = masked[max(0, place - _SHOWN_AROUND) : place]
    after = masked[place + len(label) :][:_SHOWN_AROUND]
    words = [*before.split()[place > _SHOWN_AROUND :], label, *after.split()]
    return " ".join(_hidden(word) for word in words)


def _hidden(word: str) -> str:
    labels = _LABEL.findall(word)
    if labels:
        return " ".join(labels)
    plain = not any(sign.isalnum() for sign in word) or (word.islower() and not any(map(str.isdigit, word)))
    return word if plain else "···"


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


def _marked(
    text: str, findings: Sequence[Finding], stand_in: StandIn, mark: str, made: Sequence[str]
) -> tuple[str, list[str]]:
    """The text with the findings replaced, by ``mark`` where there is a stand-in; and the stand-ins that its marks
    are for, in order. ``made`` are those of the marks it has already.
    """
    parts: list[str] = []
    now: list[str] = []
    position = seen = 0
    for finding in findings:
        before, written = text[position : finding.start], text[finding.start : finding.end]
        kept = before.count(mark)
        now += made[seen : seen + kept]
        seen += kept + written.count(mark)  # a stand-in inside a finding goes with it
        new = stand_in(finding.kind, value_of(finding, text).replace(mark, ""))
        if new is not None and "\\" in written:
            new = _ESCAPED.sub(" ", new)
        parts += [before, f"[{finding.kind.upper()}]" if new is None else mark]
        now += [] if new is None else [new]
        position = finding.end
    return "".join([*parts, text[position:]]), [*now, *made[seen:]]


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
