"""Lists that somebody keeps in a text file, one entry a line: block-lists of hosts, words that are not wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from blake3 import blake3

from treadle.core.errors import UserError

_LARGEST = 256 << 20  # bytes
_LONGEST = 2000  # characters of an entry


class ListFiles:
    """Files of a project, relative to its folder. ``where`` begins the errors."""

    def __init__(self, names: Iterable[str], project: Path | None, where: str) -> None:
        self._paths = [(name, (project or Path()) / Path(name).expanduser()) for name in names]
        self._where = where

    def fingerprint(self) -> str:
        """A digest over the files in their order; ``UserError`` for one that cannot be read."""
        hasher = blake3()
        for name, path in self._paths:
            data = self._read(name, path)
            hasher.update(len(data).to_bytes(8, "big") + data)
        return f"b3:{hasher.hexdigest()}"

    def entries(self) -> Iterator[str]:
        """Each line that is not empty and no comment (``#``), without the space around it."""
        for name, path in self._paths:
            try:
                lines = self._read(name, path).decode("utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{self._where}: {name} is not UTF-8 at byte {error.start + 1}; save it as that"
                ) from None
            for number, line in enumerate(lines, start=1):
                entry = line.strip()
                if len(entry) > _LONGEST:
                    raise UserError(f"{self._where}: {name}, line {number}: longer than {_LONGEST} characters")
                if entry and not entry.startswith("#"):
                    yield entry

    def _read(self, name: str, path: Path) -> bytes:
        try:
            if path.stat().st_size > _LARGEST:
                raise UserError(f"{self._where}: {name} has more than {_LARGEST:,} bytes; take a shorter list")
            return path.read_bytes()
        except OSError as error:
            told = error.strerror or type(error).__name__
            raise UserError(f"{self._where}: no list {path} ({told}); give a text file, one entry a line") from None
