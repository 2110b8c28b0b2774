"""Where in a text a rule found what it dropped the text for, so that the report can mark it.

Only rules with such a place are here: too few words stand nowhere. A transform that knows the place itself says so in
``Dropped.span``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Span = tuple[int, int]

_SYMBOL = re.compile(r"#[#.\u2026 ]*|(?:\.\.\.|\u2026)+")
_BULLET_LINES = re.compile(r"(?m)^[ \t]*[\u2022*\u2023\u2043-].*(?:\n+[ \t]*[\u2022*\u2023\u2043-].*){0,3}")
_ELLIPSIS_LINE = re.compile(r"(?m)^.*(?:\.\.\.|\u2026)[ \t]*$")
_LOOKED_AT = 200_000  # characters of a text


def trigger_of(rule: str, text: str) -> Span | None:
    """The characters of ``text`` that made ``rule`` drop it, half open; None when the rule has no such place."""
    find = _PLACES.get(rule.partition(".")[2])
    return find(text[:_LOOKED_AT]) if find else None


def _by(pattern: re.Pattern[str]) -> Callable[[str], Span | None]:
    def find(text: str) -> Span | None:
        found = pattern.search(text)
        return found.span() if found else None

    return find


def _longest_word(text: str) -> Span | None:
    words = [found.span() for found in re.finditer(r"\S+", text)]
    return max(words, key=lambda place: (place[1] - place[0], -place[0]), default=None)


def _repeated_line(text: str) -> Span | None:
    """The first line that stood there before, with the repeated ones right after it."""
    seen: set[str] = set()
    position, found = 0, None
    for line in text.split("\n"):
        bare = line.strip()
        if bare and bare in seen:
            start = position + line.index(bare)
            found = (found[0] if found else start, start + len(bare))
        elif bare and found:
            break
        seen.add(bare)
        position += len(line) + 1
    return found


def _word_without_letters(text: str) -> Span | None:
    for found in re.finditer(r"\S+", text):
        if not any(map(str.isalpha, found.group())):
            return found.span()
    return None


_PLACES: dict[str, Callable[[str], Span | None]] = {
    "max_symbols": _by(_SYMBOL),
    "max_bullet_lines": _by(_BULLET_LINES),
    "max_ellipsis_lines": _by(_ELLIPSIS_LINE),
    "max_duplicate_lines": _repeated_line,
    "max_mean_word_length": _longest_word,
    "min_letter_words": _word_without_letters,
}
