"""Looking for a text in rows of the journal, as they are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from treadle.core.digest import canonical_json


def holding(text: str) -> Callable[[bytes], bool]:
    """Whether a row's texts hold this one, in any case of letters."""
    wanted = text.casefold()
    escaped = canonical_json(text)[1:-1].decode().casefold()  # as it stands in the row

    def holds(line: bytes) -> bool:
        if escaped not in line.decode("utf-8", "replace").casefold():  # most rows end here
            return False
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return False
        return any(wanted in text.casefold() for text in _texts(row))

    return holds


def _texts(row: dict[str, Any]) -> Iterator[str]:
    """What was asked, what was answered, and what was given with it."""
    for message in row.get("messages") or ():
        yield message.get("content") or ""
    yield row.get("answer") or ""
    yield from row.get("alternatives") or ()
    for piece in row.get("given") or ():
        yield from (piece.get(name) or "" for name in ("document", "title", "text"))
