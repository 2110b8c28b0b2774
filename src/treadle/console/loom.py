"""The loop as a picture: eight stages on one thread around a cloth, in which every turn so far is a band.

This is geometry only; names, states and words come from the status page, colors from the style sheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT = 1000, 316
_COLUMNS = (128, 376, 624, 872)
_TOP, _BOTTOM = 50, 266
_CLOTH = (196, 100, 608, 116)  # x, y, width, height
_BAND = 8
BANDS = 12  # turns that are woven; earlier ones have left the picture
MARKS = {
    "never": "\u2013",
    "running": "\u2026",
    "done": "\u2713",
    "failed": "\u2715",
    "due": "!",
    "alert": "!",
    "waiting": "?",
    "trying": "\u21c4",
}
WORDS = {
    "never": "has not run yet",
    "running": "is running",
    "done": "done",
    "failed": "failed",
    "due": "a turn is due",
    "alert": "an alert stands",
    "waiting": "waits for a person",
    "trying": "a new version is being tried",
}


@dataclass(frozen=True, slots=True)
class Shuttle:
    """Where a stage stands."""

    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Band:
    """One turn in the cloth."""

    y: int
    outcome: str


def shuttles() -> tuple[Shuttle, ...]:
    """The first four from left to right, the others back below them."""
    there = [Shuttle(x, _TOP) for x in _COLUMNS]
    return (*there, *(Shuttle(x, _BOTTOM) for x in reversed(_COLUMNS)))


def bands(outcomes: Sequence[str]) -> tuple[Band, ...]:
    """Turns from the bottom up, oldest first; one that goes on is the last."""
    _, y, _, height = _CLOTH
    shown = outcomes[-BANDS:]
    return tuple(Band(y + height - (place + 1) * (_BAND + 1), outcome) for place, outcome in enumerate(shown))


def thread() -> str:
    """The path that goes through all stages."""
    left, right = _COLUMNS[0], _COLUMNS[-1]
    turn = 104
    return (
        f"M{left} {_TOP}H{right}C{right + turn} {_TOP} {right + turn} {_BOTTOM} {right} {_BOTTOM}"
        f"H{left}C{left - turn} {_BOTTOM} {left - turn} {_TOP} {left} {_TOP}Z"
    )


def warp() -> str:
    """The threads that the cloth hangs on."""
    x, y, width, height = _CLOTH
    return "".join(f"M{place} {y}v{height}" for place in range(x, x + width + 1, 8))


def arrows() -> str:
    """Small marks along the thread that say which way it goes."""
    between = [(a + b) // 2 for a, b in pairwise(_COLUMNS)]
    there = "".join(f"M{x - 4} {_TOP - 6}l8 6l-8 6" for x in between)
    back = "".join(f"M{x + 4} {_BOTTOM - 6}l-8 6l8 6" for x in between)
    left, right, middle = _COLUMNS[0] - 78, _COLUMNS[-1] + 78, (_TOP + _BOTTOM) // 2
    return there + back + f"M{right - 6} {middle - 4}l6 8l6 -8M{left - 6} {middle + 4}l6 -8l6 8"
