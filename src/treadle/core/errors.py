"""The errors a person can meet, as one tree; the class decides the exit code.

    TreadleError            3  ours: something that should not happen
    ├── Corrupt             1  stored bytes or rows are not what was recorded
    ├── Refused             1  a gate or a check said no
    └── UserError           2  the user's to mend: what, where, what was expected, what to do
        └── MissingExtra    2  a part that is installed separately

A message is one line and ends with what to do.
"""

from __future__ import annotations

import functools
from typing import Any

Place = tuple[str | int, ...]  # of a value in a file: the keys, and numbers in lists, that lead to it


class TreadleError(Exception):
    """Base of every error Treadle raises on purpose."""

    exit_code = 3
    told: dict[str, object] | None = None  # what ``--json`` says besides the message: how far a turn came


class Corrupt(TreadleError):
    """Stored bytes or rows are not what the record says they are."""

    exit_code = 1


class Refused(TreadleError):
    """A gate, a check or a limit said no; nothing was changed."""

    exit_code = 1


class UserError(TreadleError):
    """Something in the file, the arguments or the surroundings that the user can mend."""

    exit_code = 2
    place: Place = ()  # of the file, where it is about a part of that
    setting: Place = ()  # that it is about, of the part it came from


class MissingExtra(UserError):
    """A package that comes with an extra is not installed."""

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'treadle[{extra}]'")
        self.package = package
        self.extra = extra

    def __reduce__(self) -> Any:
        """It may be raised in another process."""
        return functools.partial(MissingExtra, self.package, extra=self.extra), ()


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """A suffix that suggests the nearest known word, or lists the known ones; starts with a space."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f" did you mean {close[0]!r}?"
    return f" known: {', '.join(sorted(known))}" if known else ""
