"""How near a text is to what it should be."""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator

_PICTURE = re.compile(r"<!--.*?-->|!\[[^\]]*\]\([^)]*\)", re.DOTALL)
_LINK = re.compile(r"\[([^\]]*)\]\([^)\s]*\)")
_TABLE_RULE = re.compile(r"^\s*\|?[\s:|-]+\|?\s*$", re.MULTILINE)
_MARKS = re.compile(r"^\s*(?:#{1,6}\s|```\w*|[-*+]\s(?:\[[ x]\])?|\d+\.\s)", re.MULTILINE)
_TAGS = re.compile(r"</?[a-z][^<>]*>")
_SIGNS = re.compile(r"[*_`|\\]")
_WORD = re.compile(r"\w+")
_BULLETS = re.compile(r"[•◦▪·●○■\u2013\u2014-]")


def edit_distances(expected: str, found: str) -> Iterator[int]:
    """Levenshtein's distance of ``expected`` to each prefix of ``found``, from the empty one on.

    Bit-parallel (Myers 1999; Hyyrö 2003): a column of the table is one integer.
    """
    yield len(expected)
    masks: dict[str, int] = {}
    for place, character in enumerate(expected):
        masks[character] = masks.get(character, 0) | 1 << place
    all_ones, last = (1 << len(expected)) - 1, 1 << len(expected) >> 1
    plus, minus, distance = all_ones, 0, len(expected)
    for character in found:
        equal = masks.get(character, 0)
        diagonal = (((equal & plus) + plus) ^ plus) | equal | minus
        up = minus | ~(diagonal | plus) & all_ones
        down = plus & diagonal
        distance += 1 if up & last or not last else -1 if down & last else 0
        yield distance
        up = (up << 1 | 1) & all_ones
        plus = (down << 1) & all_ones | ~(diagonal | up) & all_ones
        minus = up & diagonal


def character_accuracy(found: str, expected: str, longest: int = 40_000) -> float:
    """1 minus the edit distance over the longer length, in [0, 1]; white space counts as one space.

    Of texts that are longer than ``longest`` the beginning is compared: the expected one's with the beginning of what
    was found that comes nearest to it.
    """
    found, expected = " ".join(found.split()), " ".join(expected.split())
    if len(expected) > longest:
        expected, found = expected[:longest], found[: longest + longest // 4]
        distances = enumerate(edit_distances(expected, found))
        return max(1 - distance / max(len(expected), length, 1) for length, distance in distances)
    distance = 0
    for distance in edit_distances(expected, found):  # noqa: B007 (the last one is that of the whole)
        pass
    return 1 - distance / max(len(expected), len(found), 1)


def word_f1(found: str, expected: str) -> float:
    """F1 of the two bags of words."""
    ours, theirs = Counter(_WORD.findall(found.lower())), Counter(_WORD.findall(expected.lower()))
    common = sum((ours & theirs).values())
    return 2 * common / (sum(ours.values()) + sum(theirs.values())) if common else float(not (ours or theirs))


def without_markdown(text: str) -> str:
    """The words of Markdown (or of plain text with the same bullets), so that both sides are compared alike."""
    text = _LINK.sub(r"\1", _PICTURE.sub("", text))
    text = _MARKS.sub("", _TABLE_RULE.sub("", text))
    text = html.unescape(_TAGS.sub("", text))
    text = _BULLETS.sub(" ", _SIGNS.sub(" ", text))
    return " ".join(unicodedata.normalize("NFKC", text).split())
