"""What this process prints, kept in a file as well."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any, TextIO

LIMIT = 8 << 20  # characters; what is printed after that is not kept


class Tee:
    """Stands in for ``sys.stdout`` and ``sys.stderr`` until it is stopped.

    Not covered: what other processes print, and code that writes to the file descriptors itself.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace")
        self._lock = threading.Lock()
        self._left = LIMIT
        self._own = {"stdout": _Both(self, sys.stdout), "stderr": _Both(self, sys.stderr)}
        for name, stream in self._own.items():
            setattr(sys, name, stream)

    def keep(self, text: str) -> None:
        """Write it down, at once."""
        with self._lock:
            if self._left > 0 and not self._file.closed:
                self._file.write(text[: self._left])
                self._file.flush()
                self._left -= len(text)
                if self._left <= 0:
                    self._file.write(f"\n[more than {LIMIT:,} characters; the rest was not kept]\n")

    def stop(self) -> str:
        """Put the streams back, unless somebody else has replaced them meanwhile; what was printed."""
        for name, stream in self._own.items():
            if getattr(sys, name) is stream:
                setattr(sys, name, stream.behind)
        with self._lock:
            self._file.close()
        return self._path.read_text(encoding="utf-8")


class _Both:
    """A text stream that passes on to the one behind it."""

    def __init__(self, tee: Tee, behind: TextIO) -> None:
        self.behind = behind
        self._tee = tee

    def write(self, text: str) -> int:
        """As a text stream's."""
        self._tee.keep(text)
        return self.behind.write(text)

    def writelines(self, lines: list[str]) -> None:
        """As a text stream's."""
        for each in lines:
            self.write(each)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)
