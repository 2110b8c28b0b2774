"""What a source is made of, and what of it need not be read again.

A unit (a file, a row, a page) has a name and a mark that changes when reading it would give something else. A source
that has units gives them by ``read_changed``; the others are read as a whole whenever their fingerprint changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

Known = Callable[[str, str], bool]  # of a unit's name and mark: whether it was read before and is at hand
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unit:
    """What follows, up to the next, comes out of this unit; of one that is ``known`` nothing follows.

    ``name`` need not be unique, but name and mark together say what comes out.
    """

    name: str
    mark: str
    known: bool = False


LOOSE = Unit("", "")  # what follows belongs to no unit, and is read each time


def nothing_known(_name: str, _mark: str) -> bool:
    """For reading everything."""
    return False


def without_units(pieces: Iterator[T | Unit]) -> Iterator[T]:
    """The pieces alone."""
    for piece in pieces:
        if not isinstance(piece, Unit):
            yield piece
