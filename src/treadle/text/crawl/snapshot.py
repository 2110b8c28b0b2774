"""What a crawl found: a line for each address, sorted, and a digest over all that documents are made from.

Times, places of records and what a server says of versions are not in the digest: a site that did not change has the
same one, and nothing is read again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3

from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt
from treadle.text.crawl.warc_file import Place, place_of

FILE = "snapshot.jsonl"
FORMAT = 1
_WORDS = ("url", "outcome", "rule", "reason", "digest", "media", "changed", "etag", "modified")
Outcome = Literal["page", "dropped", "quarantined", "rules"]


@dataclass(frozen=True, slots=True)
class Line:
    """What became of an address. ``rules`` are robots.txt and the like, no piece of the source.

    ``place`` is the record of the last answer, the one with the body wherever there is one; ``digest`` is the body's,
    ``media`` and ``changed`` its type and time (``Content-Type``, ``Last-Modified``). ``etag`` and ``modified`` are
    what the server named its version by when it was asked last.
    """

    url: str
    outcome: Outcome
    rule: str = ""
    reason: str = ""
    place: Place | None = None
    digest: str = ""
    media: str = ""
    changed: str = ""
    etag: str = ""
    modified: str = ""
    opt_out: tuple[str, ...] = ()

    def telling(self) -> list[Any]:
        """What documents and their account depend on."""
        if self.outcome == "rules":
            return [self.url, self.outcome, self.digest]
        said = [self.url, self.outcome, self.rule, self.reason, *self.opt_out]
        return [*said, self.digest, self.media, self.changed] if self.outcome == "page" else said

    def to_json(self) -> dict[str, Any]:
        """A line of the file; what is empty is left out."""
        found = {name: getattr(self, name) for name in _WORDS}
        found["place"] = self.place and self.place.to_json()
        found["opt_out"] = list(self.opt_out)
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True, slots=True)
class Head:
    """The first line: under which settings the crawl ran, when it began, and the digest over the lines."""

    settings: str
    began: datetime
    digest: str
    pages: int


def write_snapshot(folder: Path, settings: str, began: datetime, lines: Sequence[Line]) -> Head:
    """Put it in the place of the one before, all at once."""
    digest = _digest(lines)
    pages = sum(line.outcome == "page" for line in lines)
    head = Head(settings, began, digest, pages)
    first = {"format": FORMAT, "settings": settings, "began": began.isoformat(), "digest": head.digest, "pages": pages}
    temporary = folder / f".{FILE}"
    with temporary.open("wb") as file:
        for value in (first, *(line.to_json() for line in lines)):
            file.write(canonical_json(value) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / FILE)
    return head


def read_head(folder: Path) -> Head | None:
    """The first line, None where nothing was crawled to its end."""
    try:
        with (folder / FILE).open("rb") as file:
            value = json.loads(file.readline())
        if value["format"] != FORMAT:
            raise ValueError
        return Head(value["settings"], datetime.fromisoformat(value["began"]), value["digest"], value["pages"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise _corrupt(folder) from None


def read_lines(folder: Path) -> Iterator[Line]:
    """All others; ``Corrupt`` when one cannot be read."""
    if not (folder / FILE).exists():
        return
    with (folder / FILE).open("rb") as file:
        file.readline()
        for raw in file:
            try:
                value = json.loads(raw)
                place, opt_out = place_of(value.pop("place", None)), tuple(value.pop("opt_out", ()))
                yield Line(**value, place=place, opt_out=opt_out)
            except (ValueError, KeyError, TypeError, IndexError):
                raise _corrupt(folder) from None


def check_digest(head: Head, lines: Sequence[Line], folder: Path) -> None:
    """``Corrupt`` when the lines are not those that the head was made over."""
    if head.digest != _digest(lines):
        raise _corrupt(folder)


def age(head: Head) -> float:
    """Seconds since the crawl began."""
    return max(0.0, (datetime.now(UTC) - head.began).total_seconds())


def _digest(lines: Sequence[Line]) -> str:
    hasher = blake3()
    for line in lines:
        hasher.update(canonical_json(line.telling()) + b"\n")
    return f"b3:{hasher.hexdigest()}"


def _corrupt(folder: Path) -> Corrupt:
    return Corrupt(f"{folder / FILE} is not as the crawl left it; restore it, or remove {folder} to crawl anew")
