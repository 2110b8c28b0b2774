"""WARC 1.1 (ISO 28500:2017) written as a crawl goes on, each record a gzip member of its own, and read back by place.

A body stands as it came, unchunked: ``Transfer-Encoding`` is kept under another name. What was not read of a body is
told by ``WARC-Truncated``.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from treadle.core.errors import Corrupt, UserError

_ROTATED = 1 << 30  # bytes of one file
_LEVEL = 6
_NOT_MODIFIED = "http://netpreserve.org/warc/1.1/revisit/server-not-modified"
_IDENTICAL = "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies: a file of the crawl's folder, and the bytes of its member."""

    file: str
    offset: int
    length: int

    def to_json(self) -> list[Any]:
        """As indexes have it."""
        return [self.file, self.offset, self.length]


def place_of(value: Any) -> Place | None:
    """What ``Place.to_json`` made."""
    return None if value is None else Place(str(value[0]), int(value[1]), int(value[2]))


@dataclass(frozen=True, slots=True)
class Kept:
    """A response as it was kept: ``plain`` is the whole record, unpacked."""

    status: int
    headers: Headers
    body: bytes
    plain: bytes


@dataclass(frozen=True, slots=True)
class Revisit:
    """A page that is as it was: which record has its body, and how that is known."""

    identity: str
    time: str
    not_modified: bool


def stem_of(began: datetime) -> str:
    """What the files of a crawl that began then are called by."""
    return began.strftime("%Y%m%dT%H%M%SZ")


def http_head(first: str, headers: Headers) -> bytes:
    """The head of a message, with what told of chunks under another name."""
    lines = [first]
    for name, value in headers:
        lines.append(f"{'X-Treadle-' if name.lower() == 'transfer-encoding' else ''}{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def new_id() -> str:
    """A name for a record."""
    return f"<urn:uuid:{uuid.uuid4()}>"


def payload_digest(body: bytes) -> str:
    """As WARC files have it: base 32 of SHA-1, which names and proves nothing here."""
    return "sha1:" + base64.b32encode(hashlib.sha1(body, usedforsecurity=False).digest()).decode("ascii")


def record(kind: str, fields: Headers, block: bytes) -> bytes:
    """One record as a gzip member."""
    lines = [f"WARC-Type: {kind}", *(f"{name}: {value}" for name, value in fields if value)]
    head = "WARC/1.1\r\n" + "\r\n".join(lines) + f"\r\nContent-Length: {len(block)}\r\n\r\n"
    return gzip.compress(head.encode("utf-8") + block + b"\r\n\r\n", _LEVEL, mtime=0)


def revisit_fields(revisit: Revisit, url: str) -> Headers:
    """What a record says of the earlier one that has its body."""
    return (
        ("WARC-Profile", _NOT_MODIFIED if revisit.not_modified else _IDENTICAL),
        ("WARC-Refers-To", revisit.identity),
        ("WARC-Refers-To-Target-URI", url),
        ("WARC-Refers-To-Date", revisit.time),
    )


class WarcFiles:
    """The WARC files of a crawl. What lies behind ``end`` of the last one was half written when somebody was killed."""

    def __init__(self, folder: Path, began: datetime, information: Headers, end: Place | None) -> None:
        self._folder = folder
        self._stem = stem_of(began)
        self._information = information
        self._file: BinaryIO | None = None
        self._number = 0
        for path in sorted(folder.glob(f"{self._stem}-*.warc.gz")):
            if end is None or path.name > end.file:
                path.unlink()
        if end is not None and end.file.startswith(self._stem):
            self._number = int(end.file[len(self._stem) + 1 :].partition(".")[0])
            self._open(end.offset + end.length)

    def append(self, members: Sequence[bytes]) -> list[Place]:
        """Where each of the records lies now; it is in the hands of the system."""
        if self._file is None or self._file.tell() > _ROTATED:
            self._next()
        file = self._file
        assert file is not None
        places = []
        for member in members:
            places.append(Place(Path(file.name).name, file.tell(), len(member)))
            file.write(member)
        file.flush()
        return places

    def close(self) -> None:
        """Sync and close."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _next(self) -> None:
        self.close()
        self._number += 1
        self._open(0)
        assert self._file is not None
        block = "".join(f"{name}: {value}\r\n" for name, value in self._information).encode()
        fields = (("WARC-Record-ID", new_id()), ("WARC-Filename", Path(self._file.name).name))
        self._file.write(record("warcinfo", (*fields, ("Content-Type", "application/warc-fields")), block))

    def _open(self, end: int) -> None:
        path = self._folder / f"{self._stem}-{self._number:05d}.warc.gz"
        self._file = path.open("r+b" if path.exists() else "wb")
        self._file.truncate(end)
        self._file.seek(end)


def read_record(folder: Path, place: Place) -> Kept:
    """The response or revisit that lies there; ``Corrupt`` when it does not."""
    path = folder / place.file
    wrong = Corrupt(
        f"{path} at {place.offset} is not what was crawled; restore the file, or remove {folder} to crawl anew"
    )
    try:
        with path.open("rb") as file:
            file.seek(place.offset)
            plain = gzip.decompress(file.read(place.length))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; restore it, or remove {folder} to crawl anew") from None
    except (OSError, EOFError, zlib.error):
        raise wrong from None
    _, blank, block = plain.partition(b"\r\n\r\n")
    head, second, body = block.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if not blank or not second or len(words) < 2 or not words[1].isdecimal() or not body.endswith(b"\r\n\r\n"):
        raise wrong
    headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Kept(int(words[1]), headers, body[:-4], plain)


def record_facts(plain: bytes) -> dict[str, str]:
    """The fields of a record, names in lower case."""
    head = plain.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")
    return {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n"))
    }
