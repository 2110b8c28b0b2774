"""What a text looks like to a reader: one plain form for characters that look alike, without those nobody sees.

Case, accents, width and style are put aside by Unicode's own compatibility forms; letters of other
scripts that look Latin by a table of the common ones, which is not Unicode's whole list of confusables.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence

# Cyrillic, Greek, Armenian, and of Latin what no compatibility form leads back to.
_LOOKS_LIKE = {
    "a": "\u0251\u03b1\u0430\u1d00",
    "b": "\u0185\u0299\u03b2\u0432\u044c",
    "c": "\u03f2\u0441\u1d04",
    "d": "\u0111\u0501\u0503\u1d05",
    "e": "\u025b\u03b5\u0435\u04bd\u1d07",
    "f": "\u0192\u0493\ua730",
    "g": "\u0261\u0262\u050d\u0581",
    "h": "\u0127\u029c\u043d\u04bb\u0570",
    "i": "\u0131\u0269\u026a\u03b9\u0456\u0582",
    "j": "\u03f3\u0458\u1d0a",
    "k": "\u03ba\u043a\u1d0b",
    "l": "\u0142\u029f\u04cf",
    "m": "\u03bc\u043c\u1d0d",
    "n": "\u0274\u03b7\u0578",
    "o": "\u00f8\u03bf\u043e\u0585\u1d0f",
    "p": "\u03c1\u0440\u1d18",
    "q": "\u051b",
    "r": "\u0280\u0433",
    "s": "\u0455\ua731",
    "t": "\u0167\u03c4\u0442\u1d1b",
    "u": "\u03c5\u057d\u1d1c",
    "v": "\u028b\u03bd\u0475\u1d20",
    "w": "\u03c9\u051d\u1d21",
    "x": "\u03c7\u0445",
    "y": "\u028f\u03b3\u0443\u04af",
    "z": "\u03b6\u1d22",
}
_LIKE = {character: letter for letter, characters in _LOOKS_LIKE.items() for character in characters}
for _first in (0x1F150, 0x1F170, 0x1F1E6):  # letters in black circles and squares, and those of flags
    _LIKE |= {chr(_first + number): chr(ord("a") + number) for number in range(26)}
_UNSEEN = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5")  # beside marks and format characters
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_DROPPED = frozenset({"Mn", "Me", "Cf", "Cc", "Cs", "Co"})


def plain(text: str) -> tuple[str, Sequence[int]]:
    """The plain form, and for each of its characters where in ``text`` it comes from."""
    if text.isascii() and not _CONTROLS.search(text):
        return text.lower(), range(len(text))
    made: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        letters = seen(character)
        made.append(letters)
        places += [place] * len(letters)
    return "".join(made), places


@functools.lru_cache(maxsize=1 << 14)
def seen(character: str) -> str:
    """What is seen of one character, in plain letters; nothing of one that nobody sees."""
    if character.isspace():
        return " "
    found = []
    for part in unicodedata.normalize("NFKD", character):
        if part in _UNSEEN or unicodedata.category(part) in _DROPPED:
            continue
        found += [_LIKE.get(each, each) for each in _LIKE.get(part, part).casefold()]
    return "".join(found)
