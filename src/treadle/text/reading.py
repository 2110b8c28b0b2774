"""One file into documents: what it is, what is in it, and what of that cannot be read.

Rows, plain texts and archives are read here; other documents by workers, which may be killed (``readers.workers``).
A document's locator is the file's, ``:7`` for a row, message or page of it, ``!/name`` for what is in an archive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, BinaryIO, cast

from treadle.text.accounting import Dropped, Quarantined
from treadle.text.csv_rows import read_csv
from treadle.text.json_rows import read_json_array, read_json_lines
from treadle.text.outcomes import SOURCE, Origin, Outcome, Outcomes, Pending, Place
from treadle.text.parquet_rows import read_parquet
from treadle.text.readers import archives, sniff
from treadle.text.readers.compression import Archives, BrokenStreamError, Budget, TooMuchError, Unpacked
from treadle.text.readers.mailbox import messages
from treadle.text.readers.mediawiki import Page, pages
from treadle.text.readers.piece import Documents
from treadle.text.readers.stream import Stream
from treadle.text.readers.warc import Passed, Record, records
from treadle.text.readers.workers import Workers
from treadle.text.row_mapping import RowMapping, UnusableRowError
from treadle.text.rows import BadRow, Limits, Row

Read = Callable[[BinaryIO, Limits, str], Iterator[Row | BadRow]]


@dataclass(frozen=True, slots=True)
class Settings:
    """How files are read."""

    mapping: RowMapping
    common: Mapping[str, Any]
    encoding: str
    delimiter: str | None
    limits: Limits
    documents: Documents
    archives: Archives
    ignore: tuple[str, ...]
    keyed: Callable[[str], str]


class Reading:
    """Reads files with the same settings, one after the other."""

    def __init__(self, settings: Settings, workers: Workers) -> None:
        self._settings = settings
        self._made = Outcomes(settings.common, settings.keyed, workers)

    def file(self, raw: BinaryIO, locator: str, size: int) -> Iterator[Outcome | Pending]:
        """Everything a file holds. A file out of which nothing comes is quarantined."""
        place = Place(locator, locator.rpartition("/")[2])
        stream = Stream(raw)
        try:
            yield from self._guarded(place, stream, Budget(size, self._settings.archives))
        except TooMuchError as error:
            yield Quarantined(place.source, stream.position, str(error))

    def _guarded(self, place: Place, stream: Stream, budget: Budget) -> Iterator[Outcome | Pending]:
        """What is in a stream; that it breaks is told as the last piece."""
        any_piece = False
        try:
            for piece in self._stream(place, stream, budget):
                any_piece = True
                yield piece
        except (BrokenStreamError, EOFError, OSError) as error:
            any_piece = True
            # An error of the system has a number, and its text would name the file once more.
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            yield Quarantined(place.source, stream.position, f"the rest cannot be read: {reason}")
        if not any_piece:
            yield Quarantined(place.source, 0, "empty: there is nothing in it to read")

    def _stream(self, place: Place, stream: Stream, budget: Budget) -> Iterator[Outcome | Pending]:
        kind = sniff.sniff(place.name, stream.head)
        if kind.name in sniff.PACKINGS:
            yield from self._packed(place, stream, kind.name, budget)
        elif not stream.head:
            stream.read(1)  # tells what is wrong where there is something
        elif kind.name in sniff.ROWS:
            yield from self._rows(place, stream, kind.name)
        elif kind.name in ("zip", "docx", "epub"):
            yield from self._zip(place, stream, budget)
        elif kind.name == "tar":
            yield from self._members(place, archives.tar_members(cast(BinaryIO, stream), budget), budget)
        elif kind.name in sniff.STREAMS:
            yield from {"mbox": self._mbox, "warc": self._warc, "mediawiki": self._wiki}[kind.name](place, stream)
        elif kind.known:
            yield from self._document(place, stream, kind)
        else:
            yield Quarantined(place.source, 0, kind.refusal())

    def _packed(self, place: Place, stream: Stream, packing: str, budget: Budget) -> Iterator[Outcome | Pending]:
        if place.depth >= self._settings.archives.depth:
            yield Quarantined(place.source, 0, f"packed more than {place.depth} times over; raise archives.depth")
            return
        inner = Unpacked(cast(BinaryIO, stream), packing, budget)
        within = Place(place.locator, sniff.unpacked_name(place.name, packing), place.depth + 1)
        yield from self._guarded(within, Stream(cast(BinaryIO, inner)), budget)

    def _rows(self, place: Place, stream: Stream, kind: str) -> Iterator[Outcome]:
        if kind == "parquet" and not stream.seekable():
            with stream.sought() as source:
                yield from self._rows(place, source, kind)
            return
        settings = self._settings
        for row in self._row_reader(kind)(cast(BinaryIO, stream), settings.limits, settings.encoding):
            if isinstance(row, BadRow):
                yield Quarantined(place.source, row.offset, row.reason)
                continue
            try:
                yield settings.mapping.document(row, SOURCE, place.locator, settings.common)
            except UnusableRowError as error:
                word = {"json": "element", "parquet": "row"}.get(kind, "line")
                yield Quarantined(place.source, row.offset, f"{word} {row.number}: {error}")

    def _row_reader(self, kind: str) -> Read:
        if kind in ("csv", "tsv"):
            delimiter = self._settings.delimiter or ("\t" if kind == "tsv" else ",")
            return lambda stream, limits, encoding: read_csv(stream, limits, encoding, delimiter)
        if kind == "parquet":
            return lambda stream, limits, _encoding: read_parquet(stream, limits)
        return read_json_array if kind == "json" else read_json_lines

    def _zip(self, place: Place, stream: Stream, budget: Budget) -> Iterator[Outcome | Pending]:
        if not stream.seekable():
            with stream.sought() as source:
                yield from self._zip(place, source, budget)
            return
        opened = archives.open_zip(cast(BinaryIO, stream))
        if isinstance(opened, str):
            yield Quarantined(place.source, 0, opened)
            return
        with opened:
            found = archives.zip_kind(frozenset(opened.namelist()))
            if found == "zip":
                yield from self._members(place, archives.zip_members(opened, budget), budget)
                return
        promised = sniff.promised_by(place.name)
        actual = sniff.Kind(found, promised if promised != found else None)
        if not actual.known:
            yield Quarantined(place.source, 0, actual.refusal())
            return
        stream.seek(0)
        yield from self._document(place, stream, actual)

    def _members(
        self, place: Place, found: Iterator[archives.Member | archives.BadMember], budget: Budget
    ) -> Iterator[Outcome | Pending]:
        if place.depth >= self._settings.archives.depth:
            yield Quarantined(place.source, 0, f"an archive within {place.depth} others; raise archives.depth")
            return
        for member in found:
            locator = f"{place.locator}!/{_plain(member.name)}" if member.name else place.locator
            within = Place(locator, member.name.rpartition("/")[2], place.depth + 1)
            if isinstance(member, archives.BadMember):
                yield Quarantined(within.source, member.offset, member.reason)
            elif self.ignored(member.name):
                yield self.ignore(locator)
            else:
                yield from self._guarded(within, Stream(member.stream), budget)

    def ignored(self, name: str) -> bool:
        """Whether a rule of ``ignore`` leaves a file out, by its path or by its name."""
        short = name.rpartition("/")[2]
        return any(fnmatchcase(name, rule) or fnmatchcase(short, rule) for rule in self._settings.ignore)

    def ignore(self, locator: str) -> Dropped:
        """A file that is left out, as it is counted."""
        return self._made.dropped(locator, "files.ignored", "a rule of `ignore` leaves it out")

    def _document(self, place: Place, stream: Stream, kind: sniff.Kind) -> Iterator[Outcome | Pending]:
        plain = kind.name in sniff.TEXTS
        largest, word = self._settings.documents.largest, "reading.largest"
        if plain:
            largest, word = self._settings.limits.row_bytes, "max_row_bytes"
        data = stream.read(largest + 1)
        if len(data) > largest:
            yield Quarantined(place.source, 0, f"longer than {largest} bytes; raise {word}")
            return
        fields: dict[str, Any] = {"format": kind.name}
        if kind.promised is not None:
            fields["named"] = kind.promised
        if plain:
            text = _utf8(data)
            if text is not None:
                yield self._made.text(place.locator, data, text, fields)
                return
        yield self._made.pending(kind.name, data, Origin(place.locator, place.source), fields)

    def _mbox(self, place: Place, stream: Stream) -> Iterator[Outcome | Pending]:
        for message in messages(cast(BinaryIO, stream), self._settings.documents.largest):
            if isinstance(message, BadRow):
                yield Quarantined(place.source, message.offset, message.reason)
                continue
            offset, number, data = message
            origin = Origin(f"{place.locator}:{number}", place.source, offset, f"message {number}: ")
            yield self._made.pending("eml", data, origin, {"format": "mbox"})

    def _warc(self, place: Place, stream: Stream) -> Iterator[Outcome | Pending]:
        for record in records(cast(BinaryIO, stream), self._settings.documents.largest):
            if isinstance(record, BadRow):
                yield Quarantined(place.source, record.offset, record.reason)
            elif isinstance(record, Passed):
                yield self._made.dropped(record.uri or f"{place.locator}:{record.number}", record.rule, record.reason)
            else:
                yield self._record(place, record)

    def _record(self, place: Place, record: Record) -> Outcome | Pending:
        if not record.kind:
            reason = f"record {record.number}: no reader for it ({record.media[:60] or 'no type'})"
            return Quarantined(place.source, record.offset, reason)
        fields: dict[str, Any] = {"format": record.kind, "file": f"{place.locator}:{record.number}"}
        if record.language:
            fields["language"] = record.language
        locator = record.uri or f"{place.locator}:{record.number}"
        origin = Origin(locator, place.source, record.offset, f"record {record.number}: ", record.time)
        return self._made.pending(record.kind, record.body, origin, fields)

    def _wiki(self, place: Place, stream: Stream) -> Iterator[Outcome | Pending]:
        for page in pages(cast(BinaryIO, stream), self._settings.documents.largest):
            if isinstance(page, BadRow):
                yield Quarantined(place.source, page.offset, page.reason)
            else:
                yield self._page(place, page)

    def _page(self, place: Place, page: Page) -> Outcome | Pending:
        locator = f"{place.locator}#{page.values.get('id') or page.number}"
        if page.redirect:
            return self._made.dropped(locator, "files.redirect", "a page that only points to another")
        fields: dict[str, Any] = {"format": "mediawiki", "title": page.values.get("title", "")}
        if page.values.get("ns", "0") != "0":
            fields["namespace"] = page.values["ns"]
        data = page.values.get("text", "").encode("utf-8", "replace")
        origin = Origin(locator, place.source, page.offset, f"page {page.number}: ", page.values.get("timestamp"))
        return self._made.pending("wiki", data, origin, fields)


def _utf8(data: bytes) -> str | None:
    if b"\x1b" in data or b"\x00" in data:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _plain(name: str) -> str:
    """A member's name as a locator shows it: text in any case, without what would move a terminal's cursor."""
    shown = name.encode("utf-8", "replace").decode("utf-8")
    return "".join(character if character.isprintable() else "?" for character in shown)
