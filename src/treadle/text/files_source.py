"""The source ``files``: documents of many formats, rows of tables, whole texts, packed or in archives.

Files are found by a path or a glob relative to the project, and read in the order of their paths; what each is, its
first bytes say, and its name. Rows stream. What cannot be read is quarantined with its place and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from blake3 import blake3

from treadle.core.errors import UserError
from treadle.core.settings import Moment, Positive
from treadle.text.accounting import Quarantined
from treadle.text.document import Origin
from treadle.text.found_files import FoundFile, find_files
from treadle.text.outcomes import SOURCE, Outcome, Pending, in_order
from treadle.text.readers.catalog import versions
from treadle.text.readers.compression import Archives
from treadle.text.readers.piece import Documents
from treadle.text.readers.sniff import ROWS, sniff, unpacked_name
from treadle.text.readers.workers import Workers
from treadle.text.reading import Reading, Settings
from treadle.text.remote_files import RemoteFile, find, is_remote
from treadle.text.row_mapping import Fields, RowMapping
from treadle.text.rows import Limits
from treadle.text.source import SourceContext
from treadle.text.units import LOOSE, Known, Unit, nothing_known, without_units

_IGNORED = (".DS_Store", "._*", "Thumbs.db", "desktop.ini", "__MACOSX/*")


class Files:
    """Source ``files``.

    ``fields`` says which column is the ``text``, ``label``, ``time``, ``subject``, ``messages``, ``prompt``,
    ``response``, ``chosen``, ``rejected`` or ``id``; without it a column ``text`` and the known chat layouts are
    recognized. Other columns stay in the document's ``fields`` under their own names; of the subject only a keyed
    digest does.
    ``encoding`` is for row files that are not UTF-8; a text's own is guessed. ``reading`` says how documents are
    read, ``archives`` what may come out of packed files; files that match ``ignore`` are left out, and counted.
    """

    version = 4
    choosing = ("path", "max_files")
    instead: ClassVar[Mapping[str, str]] = {
        "path": "take it out: the keys of a bucket come from its service's environment variables, and what stands"
        " behind a login on the web has to be fetched first"
    }

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
        retain_until: Moment | None = None,
        max_row_bytes: Positive = 16_000_000,
        max_depth: Positive = 64,
        max_files: Positive = 100_000,
        reading: Documents | None = None,
        archives: Archives | None = None,
        ignore: tuple[str, ...] | None = None,
    ) -> None:
        _check_encoding(encoding)
        if delimiter is not None and len(delimiter) != 1:
            raise UserError(f"files: delimiter is {len(delimiter)} characters long; expected one, such as ';'")
        self._path = path
        self._context = context
        self._most_files = max_files
        self._settings = Settings(
            mapping=RowMapping(fields or Fields(), context.keyed, personal=personal_data),
            common={"license": license, "origin": origin, "purpose": purpose, "retain_until": retain_until},
            encoding=encoding,
            delimiter=delimiter,
            limits=Limits(max_row_bytes, max_depth),
            documents=reading or Documents(),
            archives=archives or Archives(),
            ignore=_IGNORED if ignore is None else ignore,
            keyed=context.keyed,
        )

    def fingerprint(self) -> str:
        """A digest over names and contents of the files; of one above 256 MiB its size and time count instead, and of
        a remote one what its server says (ETag, time). Where there are files other than rows, the versions of the
        packages that read them count too.
        """
        hasher = blake3()
        found = self.files()
        for file in found:
            hasher.update(f"{file.locator}\0{_mark(file)}\n".encode("utf-8", "surrogatepass"))
        if not all(_of_rows(file.locator) for file in found):
            hasher.update(versions().encode())
        return f"{len(found)} files b3:{hasher.hexdigest()}"

    def files(self) -> Sequence[FoundFile | RemoteFile]:
        """What the path, folder, glob or address names, sorted; ``UserError`` when that is nothing."""
        if is_remote(self._path):
            return find(self._path, self._most_files)
        return find_files(self._path, self._context.project, self._most_files)

    def read(self, cursor: str | None = None) -> Iterator[Outcome]:
        """Every row, text and document; with ``cursor``, the locator of a file, those of the files after it."""
        return without_units(self._pieces(nothing_known, cursor))

    def read_changed(self, known: Known) -> Iterator[Outcome | Unit]:
        """The same by files; a file is known by its digest."""
        return self._pieces(known, None)

    def _pieces(self, known: Known, cursor: str | None) -> Iterator[Outcome | Unit]:
        workers = Workers(self._settings.documents)
        reading = Reading(self._settings, workers)
        whole = cursor is None
        try:
            for piece in in_order(self._all(reading, known, cursor)):
                whole = whole and not (isinstance(piece, Unit) and piece.known)
                yield piece
        finally:
            workers.close()
        if whole:  # else the files that were not read may have what these do not
            self._settings.mapping.check_time()

    def _all(self, reading: Reading, known: Known, cursor: str | None) -> Iterator[Outcome | Pending | Unit]:
        telling = known is not nothing_known  # reading alone needs no digests
        for file in self.files():
            if cursor is not None and file.locator <= cursor:
                continue
            if reading.ignored(file.locator):
                yield LOOSE
                yield reading.ignore(file.locator)
                continue
            unit = _unit(file, known) if telling else LOOSE
            yield unit
            if unit.known:
                continue
            try:
                raw = file.open()
            except OSError as error:
                yield Quarantined(f"{SOURCE}:{file.locator}", 0, f"cannot be opened: {error.strerror or error}")
                continue
            with raw:
                yield from reading.file(raw, file.locator, file.size())


def _mark(file: FoundFile | RemoteFile) -> str:
    try:
        return file.digest()
    except OSError as error:  # it is told when it is opened, and another once it can be
        return str(error.strerror or error)


def _unit(file: FoundFile | RemoteFile, known: Known) -> Unit:
    try:
        mark = file.digest()
    except OSError:  # it is told when it is opened
        return LOOSE
    if not _of_rows(file.locator):
        mark = f"{mark} {versions()}"
    return Unit(file.locator, mark, known(file.locator, mark))


def _of_rows(name: str) -> bool:
    """Whether a file's name says that it holds rows, which no package outside reads."""
    kind = sniff(name, b"").name
    return kind in ROWS or sniff(unpacked_name(name, kind), b"").name in ROWS


def _check_encoding(encoding: str) -> None:
    try:
        "".encode(encoding)
    except LookupError:
        raise UserError(f"files: Python knows no encoding {encoding!r}; for example utf-8, cp1252, shift_jis") from None
