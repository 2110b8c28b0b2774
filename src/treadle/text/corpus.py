"""A corpus: documents in Parquet, in the order they were collected, and what became of the others.

Files are ``documents-00000.parquet`` and on, zstd, one row a document. The same documents give the same bytes
under the same version of pyarrow: row groups and files end where the documents say, not where memory or
threads do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from treadle.core.artifacts import Artifact
from treadle.core.digest import canonical_json
from treadle.core.document_ids import DocumentIds
from treadle.core.errors import Corrupt, UserError
from treadle.text.accounting import Accounting, read_accounting
from treadle.text.arrow import pyarrow
from treadle.text.document import Document

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
_FORMAT_KEY = b"treadle.corpus.format"
_PATTERN = "documents-*.parquet"
_GROUP_DOCUMENTS = 5_000
_GROUP_CHARACTERS = 16_000_000
_FILE_CHARACTERS = 256_000_000
_BATCH = 1_000
_DICTIONARY = ["source", "license", "origin", "purpose"]  # columns with few different values


class Corpus(Artifact):
    """Handle to a corpus in the store."""

    kind: ClassVar[str] = "corpus"

    def has_files(self) -> bool:
        """Whether it holds documents as Treadle writes them; what somebody else's code called a corpus may not."""
        return any(fnmatchcase(entry.path, _PATTERN) for entry in self.entries())

    def documents(self) -> Iterator[list[Document]]:
        """Batches of its documents, in order."""
        return read_documents(self.path())

    def accounting(self) -> Accounting:
        """What became of everything that came in."""
        return read_accounting(self.path())


def write_corpus(folder: Path, batches: Iterable[Sequence[Document]]) -> DocumentIds:
    """Write the documents into ``folder`` and return their ids. Holds one row group in memory.

    ``MissingExtra`` without pyarrow. A corpus without documents is one file without rows.
    """
    pa, pq = pyarrow()
    schema = _schema(pa)
    ids = DocumentIds()
    number = characters = 0
    writer: Any = None
    try:
        for group in _row_groups(batches):
            if writer is None:
                writer = _open(pq, folder / f"documents-{number:05}.parquet", schema)
            writer.write_table(_table(pa, schema, group), row_group_size=len(group))
            ids.update(document.id for document in group)
            characters += sum(len(document.text) for document in group)
            if characters >= _FILE_CHARACTERS:
                writer.close()
                writer, number, characters = None, number + 1, 0
        if writer is None and number == 0:
            writer = _open(pq, folder / "documents-00000.parquet", schema)
    finally:
        if writer is not None:
            writer.close()
    return ids


def read_documents(folder: Path) -> Iterator[list[Document]]:
    """Batches of documents in the order they were written; ``UserError`` for a format this Treadle does
    not read.
    """
    for path in corpus_files(folder):
        with open_corpus_file(path) as file:
            for group in range(file.num_row_groups):  # asked for all at once, Arrow keeps what it read of the file
                for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group]):
                    yield documents_of(batch)


def corpus_files(folder: Path) -> list[Path]:
    """The files that hold its documents, in order; ``Corrupt`` where there is none."""
    files = sorted(folder.glob(_PATTERN))
    if not files:
        raise Corrupt(f"{folder} holds no {_PATTERN}; it is not a corpus")
    return files


def open_corpus_file(path: Path) -> Any:
    """A ``ParquetFile`` of a corpus; ``UserError`` for a format this Treadle does not read."""
    _, pq = pyarrow()
    file = pq.ParquetFile(path)
    check_format(file.schema_arrow.metadata or {}, path)
    return file


def check_format(metadata: dict[bytes, bytes], path: Path) -> None:
    """Refuse a file that says it is of another format, or of none."""
    found = metadata.get(_FORMAT_KEY)
    if found is None:
        raise Corrupt(f"{path.name} is not a corpus of Treadle's: it has no format number")
    if found != str(FORMAT).encode():
        number = found.decode("ascii", "replace")
        raise UserError(f"{path.name} is a corpus of format {number}; this Treadle reads {FORMAT}, update it")


def _schema(pa: Any) -> pa.Schema:
    text, texts = pa.string(), pa.list_(pa.field("item", pa.string(), nullable=False))
    columns = [
        ("id", text, False),
        ("source", text, False),
        ("locator", text, False),
        ("text", text, False),
        ("license", text, True),
        ("time", text, True),
        ("origin", text, False),
        ("parents", texts, False),
        ("purpose", text, True),
        ("subject", text, True),
        ("retain_until", text, True),
        ("opt_out", texts, False),
        ("fields", text, False),  # canonical JSON: what sources say differs from one to the next
    ]
    fields = [pa.field(name, kind, nullable=nullable) for name, kind, nullable in columns]
    return pa.schema(fields, metadata={_FORMAT_KEY: str(FORMAT).encode()})


def _open(pq: Any, path: Path, schema: pa.Schema) -> Any:
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=_DICTIONARY,
        write_statistics=[*_DICTIONARY, "time"],
        data_page_version="1.0",
        version="2.6",
    )


def _row_groups(batches: Iterable[Sequence[Document]]) -> Iterator[list[Document]]:
    group: list[Document] = []
    characters = 0
    for batch in batches:
        for document in batch:
            group.append(document)
            characters += len(document.text)
            if len(group) >= _GROUP_DOCUMENTS or characters >= _GROUP_CHARACTERS:
                yield group
                group, characters = [], 0
    if group:
        yield group


def _table(pa: Any, schema: pa.Schema, documents: Sequence[Document]) -> pa.Table:
    columns = []
    for column in schema:
        if column.name == "fields":
            values: list[Any] = [canonical_json(document.fields).decode() for document in documents]
        else:
            values = [getattr(document, column.name) for document in documents]
        columns.append(pa.array(values, type=column.type))
    return pa.Table.from_arrays(columns, schema=schema)


def documents_of(batch: pa.RecordBatch | pa.Table) -> list[Document]:
    """Rows of a corpus as documents."""
    columns = batch.to_pydict()
    rows = zip(*(columns[name] for name in batch.schema.names), strict=True)
    documents = []
    for row in rows:
        values = dict(zip(batch.schema.names, row, strict=True))
        values["parents"] = tuple(values["parents"])
        values["opt_out"] = tuple(values["opt_out"])
        values["fields"] = json.loads(values["fields"])
        documents.append(Document(**values))
    return documents


def read_names(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Id, source and locator of every document, without reading the texts."""
    _, pq = pyarrow()
    for path in sorted(folder.glob(_PATTERN)):
        with pq.ParquetFile(path) as file:
            check_format(file.schema_arrow.metadata or {}, path)
            for batch in file.iter_batches(columns=["id", "source", "locator"]):
                columns = batch.to_pydict()
                yield from zip(columns["id"], columns["source"], columns["locator"], strict=True)
