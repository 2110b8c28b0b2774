"""Phone numbers: international, North American in the usual spellings, or any digits beside a word like phone."""

from __future__ import annotations

import re

from treadle.text.surroundings import Context, isolated

_PHONE_AFTER = re.compile(rb"(?i)[ ,(-]{1,2}(?:office|fax|home|mobile|cell|work|phone|tel)\b")
_DIGITS = re.compile(rb"\d+")
_MOST_DIGITS, _MOST_GROUPS = 15, 6
_NORTH_AMERICAN = re.compile(rb"(?<![\d-])(?:1[ .-]?|001[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])\d{3}[ .-]\d{4}")
_EXTENSION = re.compile(rb" ?(?:x|ext\.?) ?\d{1,6}")
_DATE_LIKE = re.compile(rb"(?:\d{4}[-./]\d\d?[-./]\d\d?|\d\d?[-./]\d\d?[-./]\d{4})(?!\d)")


def phone_number(context: Context, data: bytes, start: int, end: int) -> tuple[int, int] | None:
    """International, North American in its usual spellings, or any number beside a word like phone."""
    text = data[start:end]
    if text.removeprefix(b"(")[:1] == b"+":
        return _checked_number(data, start, _fitting(data, start, end), least=8)
    last = _fitting(data, start, end)
    named = context.before(data, start) or _PHONE_AFTER.match(data, last)
    if named and not _DATE_LIKE.match(text):
        return _checked_number(data, start, last, least=6)
    usual = _NORTH_AMERICAN.search(text)
    return _checked_number(data, start + usual.start(), start + usual.end(), least=10) if usual else None


def _fitting(data: bytes, start: int, end: int) -> int:
    """Where a number of at most six groups and fifteen digits (E.164) that begins at ``start`` ends."""
    digits, last = 0, start
    for count, group in enumerate(_DIGITS.finditer(data, start, end), start=1):
        digits += len(group[0])
        if digits > _MOST_DIGITS or count > _MOST_GROUPS:
            break
        last = group.end()
    return last


def _checked_number(data: bytes, start: int, end: int, least: int) -> tuple[int, int] | None:
    text = data[start:end]
    if sum(map(len, _DIGITS.findall(text))) < least or text.count(b"(") != text.count(b")"):
        return None
    extension = _EXTENSION.match(data, end)
    end = extension.end() if extension else end
    return (start, end) if isolated(data, start, end) else None
