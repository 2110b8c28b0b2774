"""Lines of files and of what a URL gives, each with its place, so that what cannot be read is named."""

from __future__ import annotations

import gzip
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from treadle.core.errors import UserError

LONGEST = 16_000_000  # bytes of a line; a longer one is skipped
_TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True, slots=True)
class Line:
    """One line, counted from 1, and where it begins. ``data`` is None when it is too long to be read."""

    place: str
    number: int
    offset: int
    data: bytes | None

    @property
    def name(self) -> str:
        """As a message names it."""
        return f"{self.place} line {self.number}"


def read_lines(place: str) -> Iterator[Line]:
    """Every line that is not blank; plain or gzipped. ``UserError`` when there is nothing to read."""
    name = urllib.parse.urlsplit(place).path.rpartition("/")[2] or place
    with _opened(place) as file:
        number, offset = 0, 0
        try:
            while data := file.readline(LONGEST + 1):
                number, begun = number + 1, offset
                offset += len(data)
                if len(data) <= LONGEST:
                    if data.strip():
                        yield Line(name, number, begun, data)
                    continue
                while data and not data.endswith(b"\n"):
                    data = file.readline(LONGEST + 1)
                    offset += len(data)
                yield Line(name, number, begun, None)
        except (OSError, EOFError, zlib.error) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise UserError(
                f"import: {name} ends badly after line {number} ({why}); what came before it is in, run it again"
            ) from None


@contextmanager
def _opened(place: str) -> Iterator[IO[bytes]]:
    if place.startswith(("http://", "https://")):
        with _from_url(place) as file:
            yield file
        return
    if "://" in place:
        raise UserError(f"import: {place.partition('://')[0]}:// is not read; give a file, or an http or https URL")
    path = Path(place).expanduser()
    try:
        opened = cast("IO[bytes]", gzip.GzipFile(path)) if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise UserError(f"import: {place}: {error.strerror}; give a file of JSON lines") from None
    with opened:
        yield opened


@contextmanager
def _from_url(place: str) -> Iterator[IO[bytes]]:
    if "@" in urllib.parse.urlsplit(place).netloc:
        raise UserError("import: the URL holds a user or password; give one without, or download the file")
    try:
        reply = urllib.request.urlopen(place, timeout=_TIMEOUT)  # noqa: S310 (http and https only, see above)
    except (urllib.error.URLError, OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise UserError(f"import: {place} gives nothing ({why}); download the file and import that") from None
    with reply:
        zipped = urllib.parse.urlsplit(place).path.endswith(".gz")
        yield cast("IO[bytes]", gzip.GzipFile(fileobj=reply) if zipped else reply)
