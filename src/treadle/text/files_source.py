"""The source ``files``: rows of JSON lines, JSON, CSV, TSV and Parquet, and whole texts and Markdown, plain
or gzipped.

Files are found by a path or a glob relative to the project, and read in the order of their paths. Rows
stream. What cannot be read is quarantined with its place and the rest goes on.
"""

from __future__ import annotations

import glob
import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from blake3 import blake3

from treadle.core.digest import blake3_file
from treadle.core.errors import MissingExtra, UserError
from treadle.text.accounting import Dropped, Quarantined
from treadle.text.csv_rows import read_csv
from treadle.text.document import Document, Origin, document_id
from treadle.text.json_rows import read_json_array, read_json_lines
from treadle.text.parquet_rows import read_parquet
from treadle.text.row_mapping import Fields, RowMapping, UnusableRowError
from treadle.text.rows import BadRow, Limits, Row
from treadle.text.source import SourceContext

SOURCE = "files"
_WHOLLY_HASHED = 1 << 28  # bytes; a larger file's fingerprint is its size and time
# Deflate packs at most 1,032 to 1; nothing anybody wrote comes near, so what does is meant to fill the
# memory.
_MOST_EXPANSION = 300
_EXPANSION_FROM = 1 << 26  # bytes read before the ratio counts

Read = Callable[[BinaryIO, Limits, str], Iterator[Row | BadRow]]
Mode = Literal["row", "text"]


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to read: where it is, how it is called in locators, what is in it."""

    path: Path
    locator: str
    kind: str
    gzipped: bool


class Files:
    """Source ``files``.

    ``fields`` says which column is the ``text``, ``label``, ``time``, ``subject``, ``messages``, ``prompt``,
    ``response`` or ``id``; without it a column ``text`` and the known chat layouts are recognized. Other
    columns stay in the document's ``fields`` under their own names; of the subject only a keyed digest does.
    ``encoding`` is for row files that are not UTF-8; a text's own is guessed.
    """

    version = 1

    def __init__(
        self,
        *,
        path: str,
        context: SourceContext,
        license: str | None = None,  # noqa: A002 (the file's word)
        fields: Fields | None = None,
        personal_data: bool = False,
        encoding: str = "utf-8",
        delimiter: str | None = None,
        origin: Origin = "human",
        purpose: str | None = None,
        retain_until: str | None = None,
        max_row_bytes: int = 16_000_000,
        max_depth: int = 64,
        max_files: int = 100_000,
    ) -> None:
        _check_encoding(encoding)
        if delimiter is not None and len(delimiter) != 1:
            raise UserError(f"files: delimiter is {len(delimiter)} characters long; expected one, such as ';'")
        self._path = path
        self._context = context
        self._encoding = encoding
        self._delimiter = delimiter
        self._limits = Limits(max_row_bytes, max_depth)
        self._most_files = max_files
        self._common = {"license": license, "origin": origin, "purpose": purpose, "retain_until": retain_until}
        self._mapping = RowMapping(fields or Fields(), context.keyed, personal=personal_data)

    def fingerprint(self) -> str:
        """A digest over names and contents of the files; of one above 256 MiB its size and time count
        instead.
        """
        hasher = blake3()
        found = self.files()
        for file in found:
            status = file.path.stat()
            large = status.st_size > _WHOLLY_HASHED
            content = f"{status.st_size} {status.st_mtime_ns}" if large else blake3_file(file.path)
            hasher.update(f"{file.locator}\0{content}\n".encode("utf-8", "surrogatepass"))
        return f"{len(found)} files b3:{hasher.hexdigest()}"

    def files(self) -> list[FoundFile]:
        """What the path or glob names, sorted; ``UserError`` when that is nothing, or of a kind nobody can
        read.
        """
        project = self._context.project
        pattern = os.path.expanduser(self._path)  # noqa: PTH111 (a glob is no path)
        if (project / pattern).is_file():
            return [_found(project, project / pattern)]
        names = glob.iglob(pattern, root_dir=project, recursive=True)  # noqa: PTH207 (root_dir, and no links followed twice)
        paths = []
        for name in names:
            if (project / name).is_file():
                paths.append(project / name)
            if len(paths) > self._most_files:
                raise UserError(f"files: {self._path} names more than {self._most_files} files; raise max_files")
        if not paths:
            raise UserError(
                f"files: nothing matches {self._path} in {project}; expected a file, or a glob such as data/**/*.jsonl"
            )
        return sorted((_found(project, path) for path in paths), key=lambda file: file.locator)

    def read(self, cursor: str | None = None) -> Iterator[Document | Dropped | Quarantined]:
        """Every row or text; with ``cursor``, the locator of a file, those of the files after it."""
        for file in self.files():
            if cursor is None or file.locator > cursor:
                yield from self._file(file)

    def _file(self, file: FoundFile) -> Iterator[Document | Dropped | Quarantined]:
        try:
            raw = file.path.open("rb")
        except OSError as error:
            yield Quarantined(_name(file), 0, f"cannot be opened: {error.strerror}")
            return
        with raw:
            stream = _Stream(raw, file)
            pieces = self._text(file, stream) if file.kind in ("txt", "md") else self._rows(file, stream)
            try:
                yield from pieces
            except (EOFError, OSError, zlib.error, _TooMuchError) as error:
                reason = (
                    str(error) if isinstance(error, _TooMuchError) else f"the rest cannot be read: {_explain(error)}"
                )
                yield Quarantined(_name(file), stream.position, reason)

    def _rows(self, file: FoundFile, stream: _Stream) -> Iterator[Document | Quarantined]:
        for row in self._reader(file.kind)(cast(BinaryIO, stream), self._limits, self._encoding):
            if isinstance(row, BadRow):
                yield Quarantined(_name(file), row.offset, row.reason)
                continue
            try:
                yield self._mapping.document(row, SOURCE, file.locator, self._common)
            except UnusableRowError as error:
                yield Quarantined(_name(file), row.offset, f"{_place(file.kind)} {row.number}: {error}")

    def _text(self, file: FoundFile, stream: _Stream) -> Iterator[Document | Quarantined]:
        data = stream.read(self._limits.row_bytes + 1)
        if len(data) > self._limits.row_bytes:
            yield Quarantined(_name(file), 0, f"longer than {self._limits.row_bytes} bytes; raise max_row_bytes")
            return
        decoded = _decoded(data)
        if decoded is None:
            yield Quarantined(_name(file), 0, "in no encoding that can be told")
            return
        text, encoding = decoded
        fields = {"format": file.kind} if encoding == "utf-8" else {"format": file.kind, "encoding": encoding}
        identity = document_id(SOURCE, file.locator, data)
        yield Document(identity, SOURCE, file.locator, text, fields=fields, **self._common)  # type: ignore[arg-type]

    def _reader(self, kind: str) -> Read:
        if kind in ("csv", "tsv"):
            delimiter = self._delimiter or ("\t" if kind == "tsv" else ",")
            return lambda stream, limits, encoding: read_csv(stream, limits, encoding, delimiter)
        if kind == "parquet":
            return lambda stream, limits, _encoding: read_parquet(stream, limits)
        return read_json_array if kind == "json" else read_json_lines


class _TooMuchError(ValueError):
    """More came out of a compressed file than anybody meant to put in."""


class _Stream(io.RawIOBase):
    """A file, unpacked when it is gzipped, that knows how far it was read and does not unpack a bomb."""

    def __init__(self, raw: BinaryIO, file: FoundFile) -> None:
        self._source: BinaryIO = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if file.gzipped else raw
        self._packed = file.path.stat().st_size if file.gzipped else None
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._packed is None

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = self._source.seek(offset, whence)
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        data = self._source.read(-1 if size is None else size)
        self._advance(len(data))
        return data

    def readline(self, size: int | None = -1) -> bytes:
        data = self._source.readline(-1 if size is None else size)
        self._advance(len(data))
        return data

    def _advance(self, count: int) -> None:
        self.position += count
        if self._packed is not None and self.position > max(_EXPANSION_FROM, _MOST_EXPANSION * self._packed):
            raise _TooMuchError(f"unpacks to more than {_MOST_EXPANSION} times its size; the rest was not read")


_KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
          ".txt": "txt", ".text": "txt", ".md": "md", ".markdown": "md"}  # fmt: skip


def kind_of(path: Path) -> tuple[str, bool]:
    """How a file is read, by its name, and whether it is gzipped; ``UserError`` for a kind that nobody can read."""
    name = path.name.lower()
    gzipped = name.endswith(".gz")
    kind = _KINDS.get(Path(name.removesuffix(".gz")).suffix)
    if kind is None or (gzipped and kind == "parquet"):
        known = ", ".join(sorted(set(_KINDS)))
        raise UserError(
            f"files: {path} is of no kind that can be read; expected one of {known}, all but Parquet also .gz"
        )
    return kind, gzipped


def _found(project: Path, path: Path) -> FoundFile:
    kind, gzipped = kind_of(path)
    # Relative to the project wherever that is possible, so that a project can be moved and its documents keep
    # their ids.
    locator = os.path.relpath(path, project) if path.is_relative_to(project) else str(path)
    return FoundFile(path, Path(locator).as_posix(), kind, gzipped)


def _name(file: FoundFile) -> str:
    return f"{SOURCE}:{file.locator}"


def _place(kind: str) -> str:
    return {"json": "element", "parquet": "row"}.get(kind, "line")


def _explain(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the gzip stream ends too early"
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return "not a sound gzip stream"
    return getattr(error, "strerror", None) or type(error).__name__


def _check_encoding(encoding: str) -> None:
    try:
        "".encode(encoding)
    except LookupError:
        raise UserError(f"files: Python knows no encoding {encoding!r}; for example utf-8, cp1252, shift_jis") from None


def _decoded(data: bytes) -> tuple[str, str] | None:
    """A text file's text and encoding: UTF-8 where it is that, by its byte order mark, else as
    charset-normalizer says.
    """
    try:
        return data.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        pass
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        raise MissingExtra("charset-normalizer", extra="data") from None
    best = from_bytes(data).best()
    if best is None:
        return None
    text = str(best)
    return None if "\x00" in text or any("\ud800" <= c <= "\udfff" for c in text) else (text, best.encoding)
