"""A place in the file: how it is written in messages, and how an error comes by the one it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from treadle.core.errors import MissingExtra, Place, UserError


def dotted(place: Place) -> str:
    """As it is written in messages: ``collect.sources[0].path``."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def place_of(written: str) -> Place:
    """The reverse."""
    return tuple(int(part[1:-1]) if part[0] == "[" else part for part in re.findall(r"\[\d+\]|[^.\[]+", written))


@contextmanager
def about(where: str, *inside: str) -> Iterator[None]:
    """What the user did wrong in the block is in this part of the file, and in it under the keys ``inside``. Whoever
    read the file adds the line."""
    try:
        yield
    except MissingExtra:
        raise  # that is not in the file
    except UserError as error:
        error.place = error.place or (*place_of(where), *inside, *error.setting)
        raise
