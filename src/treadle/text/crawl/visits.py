"""The visits of the crawl that is under way: a line for each address that was asked for, written after its record.

A crawl that was killed goes on from here: an address that has a line is not asked for again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from treadle.core.digest import blake3_bytes, canonical_json
from treadle.text.crawl.warc_file import Place, place_of, stem_of

FILE = "visits.jsonl"


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of asking for an address. ``place`` has the response, ``payload`` the record with the body, which is an
    earlier one where the page is as it was; ``digest`` is the body's BLAKE3.
    """

    url: str
    place: Place | None
    status: int = 0
    payload: Place | None = None
    digest: str = ""
    truncated: str = ""
    failure: str = ""

    def to_json(self) -> dict[str, Any]:
        """A line of the file."""
        return {
            "url": self.url,
            "place": self.place and self.place.to_json(),
            "status": self.status,
            "payload": self.payload and self.payload.to_json(),
            "digest": self.digest,
            "truncated": self.truncated,
            "failure": self.failure,
        }


class Visits:
    """They by address, on disk and in memory; ``began`` is when the crawl did."""

    def __init__(self, folder: Path, settings: str) -> None:
        """``settings``: a digest; visits of a crawl with other ones are none of this."""
        self._path, self._settings = folder / FILE, settings
        self._file: BinaryIO | None = None
        self._found: dict[str, Visit] = {}
        self.began = _unused(folder)
        self.end: Place | None = None
        self._restore(folder)

    def get(self, url: str) -> Visit | None:
        """What is known of an address."""
        return self._found.get(url)

    def __len__(self) -> int:
        return len(self._found)

    def add(self, visit: Visit) -> None:
        """Write a line. The record it names is written already."""
        self._found[visit.url] = visit
        self._write(visit.to_json())

    def close(self, *, done: bool) -> None:
        """``done`` when a snapshot has taken its place."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if done:
            self._path.unlink(missing_ok=True)

    def _restore(self, folder: Path) -> None:
        """Lines up to the first that is cut off, or names a record that is not there."""
        sound = 0
        for number, line in enumerate(self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else ()):
            try:
                value = json.loads(line)
                if number == 0:
                    if value["settings"] != self._settings:
                        break
                    self.began = datetime.fromisoformat(value["began"])
                elif not self._take(value, folder):
                    break
            except (ValueError, KeyError, TypeError, IndexError):
                break
            if not line.endswith(b"\n"):
                break
            sound += len(line)
        self._file = self._path.open("r+b" if self._path.exists() else "wb")
        self._file.truncate(sound)
        self._file.seek(sound)
        if sound == 0:
            self._write({"format": 2, "began": self.began.isoformat(), "settings": self._settings})

    def _take(self, value: dict[str, Any], folder: Path) -> bool:
        place = place_of(value["place"])
        visit = Visit(
            url=value["url"],
            place=place,
            status=value["status"],
            payload=place_of(value["payload"]),
            digest=value["digest"],
            truncated=value["truncated"],
            failure=value["failure"],
        )
        if place is not None:
            path = folder / place.file
            if not path.exists() or path.stat().st_size < place.offset + place.length:
                return False
            self.end = place
        self._found[visit.url] = visit
        return True

    def _write(self, value: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(canonical_json(value) + b"\n")
        self._file.flush()


def _unused(folder: Path) -> datetime:
    """Now, or the first second after it that no crawl's files are named by."""
    began = datetime.now(UTC).replace(microsecond=0)
    while any(folder.glob(f"{stem_of(began)}-*")):
        began += timedelta(seconds=1)
    return began


def body_digest(body: bytes) -> str:
    """What proves that a body is the one that was crawled."""
    return blake3_bytes(body)
