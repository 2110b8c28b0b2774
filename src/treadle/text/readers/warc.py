"""WARC and WET (ISO 28500): what a crawler brought home, record by record.

Own code rather than fastwarc: that gives the bytes of a record that is cut off as if it were whole, and ends the
process (a panic) where a stream fails.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from treadle.text.readers.decoding import declared_in, decode_as
from treadle.text.readers.piece import UnreadableError
from treadle.text.readers.sniff import HEAD, sniff
from treadle.text.rows import BadRow

_LONGEST_LINE = 1 << 16
_MOST_HEADERS = 1000
_START = re.compile(rb"WARC/\d{1,2}\.\d{1,2}\r?\n\Z")
_KINDS = {"text/html": "html", "application/xhtml+xml": "html", "text/plain": "txt", "application/pdf": "pdf",
          "text/markdown": "md", "application/epub+zip": "epub", "text/xml": "xml", "application/xml": "xml",
          "application/rss+xml": "xml", "application/atom+xml": "xml", "message/rfc822": "eml"}  # fmt: skip
READ_TYPES = frozenset(_KINDS)
_READ = frozenset({"response", "resource", "conversion"})


@dataclass(frozen=True, slots=True)
class Record:
    """A record that holds a document: ``kind`` as ``sniff`` names it, empty where no reader is for it."""

    offset: int
    number: int
    uri: str
    kind: str
    body: bytes
    time: str | None
    language: str | None
    media: str


@dataclass(frozen=True, slots=True)
class Passed:
    """A record that holds none, by the name of a rule."""

    number: int
    uri: str
    rule: str
    reason: str


def records(stream: BinaryIO, largest: int) -> Iterator[Record | Passed | BadRow]:
    """Every record in order. A broken header costs what lies before the next header that is sound."""
    offset = number = 0
    while True:
        line = stream.readline(_LONGEST_LINE)
        if not line:
            return
        start, offset = offset, offset + len(line)
        if not line.strip():
            continue
        if not _START.match(line):
            first = len(line)
            line, skipped = _resumed(stream)
            yield BadRow(start, f"{first + skipped} bytes where a record should begin are none, and were passed over")
            if not line:
                return
            offset += skipped + len(line)
        number += 1
        begin = offset
        headers, read = _headers(stream)
        offset += read
        length = headers.get("content-length", "")
        if not length.isdecimal():
            yield BadRow(begin, f"record {number}: its header names no length")
            continue
        wanted = int(length)
        body, read = _body(stream, wanted, largest)
        offset += read
        if read < wanted:
            yield BadRow(begin, f"record {number}: cut off, {read} of {wanted} bytes are there")
            return
        yield _record(begin, number, headers, body, largest)


def _resumed(stream: BinaryIO) -> tuple[bytes, int]:
    """The next line that begins a record (empty at the end), and how many bytes lie before it."""
    skipped = 0
    while line := stream.readline(_LONGEST_LINE):
        if _START.match(line):
            return line, skipped
        skipped += len(line)
    return b"", skipped


def _headers(stream: BinaryIO) -> tuple[dict[str, str], int]:
    """Fields up to the empty line, names in lower case, the first of each; and the bytes they take."""
    found: dict[str, str] = {}
    read = 0
    for _ in range(_MOST_HEADERS):
        line = stream.readline(_LONGEST_LINE)
        read += len(line)
        if not line.strip():
            break
        name, _, value = line.decode("utf-8", "replace").partition(":")
        found.setdefault(name.strip().lower(), value.strip())
    return found, read


def _body(stream: BinaryIO, wanted: int, largest: int) -> tuple[bytes | None, int]:
    """The body (None when it is too long, then it is passed over), and how many bytes were there."""
    if wanted <= largest:
        body = stream.read(wanted)
        return body, len(body)
    read = 0
    while read < wanted:
        piece = stream.read(min(1 << 20, wanted - read))
        if not piece:
            break
        read += len(piece)
    return None, read


def _record(
    begin: int, number: int, headers: dict[str, str], body: bytes | None, largest: int
) -> Record | Passed | BadRow:
    uri = headers.get("warc-target-uri", "").strip("<>")
    what = headers.get("warc-type", "")
    if what not in _READ:
        return Passed(number, uri, "files.warc_record", f"of type {what[:40] or 'none'}, which holds no document")
    if body is None:
        return BadRow(begin, f"record {number}: longer than {largest} bytes")
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    charset: str | None = None
    if media == "application/http":
        head, body = _parted(body)
        status, sent = _http(head)
        if status != "200":
            return Passed(number, uri, "files.http_status", f"answered with status {status}")
        try:
            body = _plain_body(body, sent, largest)
        except UnreadableError as error:
            return BadRow(begin, f"record {number}: {error}")
        media, _, rest = sent.get("content-type", "").partition(";")
        media = media.strip().lower()
        found = re.search(r"charset\s*=\s*[\"']?([A-Za-z0-9._:-]{2,40})", rest)
        charset = found[1] if found else None
    if not body.strip():
        return Passed(number, uri, "files.empty", "an empty body")
    kind = _kind(uri, media, body)
    if kind in ("html", "txt") and charset:
        body = _in_utf8(body, charset)
    language = headers.get("warc-identified-content-language")
    return Record(begin, number, uri, kind, body, headers.get("warc-date"), language, media)


def _parted(message: bytes) -> tuple[bytes, bytes]:
    """Header and body; the line ends of old crawls are bare."""
    found = re.search(rb"\r?\n\r?\n", message)
    return (message[: found.start()], message[found.end() :]) if found else (message, b"")


def _http(head: bytes) -> tuple[str, dict[str, str]]:
    first, _, rest = head.decode("latin-1").partition("\n")
    words = first.split()
    fields: dict[str, str] = {}
    for line in rest.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    return (words[1] if len(words) > 1 and words[0].startswith("HTTP/") else "none"), fields


def _plain_body(body: bytes, sent: dict[str, str], largest: int) -> bytes:
    """Without chunks and without packing. Many crawlers store a body unpacked and keep the headers, so what is not
    packed as the headers say is taken as it is.
    """
    if "chunked" in sent.get("transfer-encoding", "").lower():
        body = _joined(body)
    packing = sent.get("content-encoding", "").lower()
    if packing in ("gzip", "x-gzip", "deflate"):
        try:
            unpack = zlib.decompressobj(wbits=47 if body[:1] in (b"\x1f", b"\x78") else -15)
            plain = unpack.decompress(body, largest + 1)
        except zlib.error:
            if body[:2] == b"\x1f\x8b":
                raise UnreadableError("its body is no sound gzip stream") from None
            return body
        if len(plain) > largest:
            raise UnreadableError(f"its body unpacks to more than {largest} bytes")
        return plain
    if packing in ("br", "zstd") and not re.match(rb"\s*[<{]", body):
        raise UnreadableError(f"its body is packed with {packing}, which nobody unpacks here")
    return body


def _joined(body: bytes) -> bytes:
    """The chunks of RFC 9112 put together; the body as it is where there are none."""
    pieces: list[bytes] = []
    at = 0
    while True:
        end = body.find(b"\r\n", at, at + 100)
        size = body[at:end].partition(b";")[0].strip() if end >= 0 else b""
        if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", size):
            return b"".join(pieces) if pieces and not body[at:].strip() else body
        count = int(size, 16)
        if count == 0:
            return b"".join(pieces)
        pieces.append(body[end + 2 : end + 2 + count])
        at = end + 4 + count


def _kind(uri: str, media: str, body: bytes) -> str:
    path = re.sub(r"[?#].*", "", uri).rpartition("/")[2]
    found = sniff("page.html" if _KINDS.get(media) == "html" else path, body[:HEAD])
    if found.name in _KINDS.values() and (found.name != "txt" or media in ("", "text/plain")):
        return found.name
    return _KINDS.get(media, "") if found.name in ("txt", "") else ""


def _in_utf8(body: bytes, charset: str) -> bytes:
    """A body in the encoding that its sender named, unless it names one itself."""
    if declared_in(body) is not None:
        return body
    found = decode_as(body, charset)
    return body if found is None else b"\xef\xbb\xbf" + found[0].encode("utf-8")
