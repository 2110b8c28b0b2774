"""Rows of the journal read by place. A segment is verified once, while it is held open, and never parsed whole."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

from treadle.core.segment import Segment, read_file
from treadle.core.workspace import Workspace

_HELD = 8  # segments kept open


class RowReader:
    """Reads single rows. A segment that was erased is let go of at once."""

    def __init__(self, workspace: Workspace) -> None:
        self._folder = workspace.root / "journal"
        self._store = workspace.store
        self._held: OrderedDict[str, BinaryIO] = OrderedDict()
        self._lock = threading.Lock()

    def line(self, stream: str, file: str | None, segment: str | None, start: int, length: int) -> bytes:
        """The bytes at a place in a sealed segment, or in the file of one that is not sealed; empty when it is gone.

        ``Corrupt`` when the segment is not what was sealed.
        """
        if segment is None:
            return read_file(Path(self._folder, stream, f"{file}.jsonl"), start, length)
        with self._lock:
            held = self._held.pop(segment, None)
            if not self._store.has_object(segment):  # erased, perhaps a moment ago
                if held is not None:
                    held.close()
                return b""
            if held is None:
                held = Segment(segment, self._store).open("rows.jsonl")
            self._held[segment] = held
            while len(self._held) > _HELD:
                self._held.popitem(last=False)[1].close()
            held.seek(start)
            return held.read(length)

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            while self._held:
                self._held.popitem()[1].close()


def parsed(line: bytes, identifier: str) -> dict[str, Any] | None:
    """The row in a line, if it is the one with this id."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and row.get("id") == identifier else None
