"""What rules found in which document, beside the corpus they cleaned: ``findings.parquet``.

A row a document and rule: ``document`` (its id), ``rule`` (``redact.email``), ``count``, ``mentions`` (keyed digests of
what was found, never that itself). Holds one row group in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.text.accounting import Touched
from treadle.text.arrow import pyarrow

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "findings.parquet"
_GROUP = 20_000
_BATCH = 5_000


class FindingsFile:
    """Written as the documents go by; no file where nothing was found. Use it as a context."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._rows: list[Touched] = []
        self._writer: Any = None

    def __enter__(self) -> FindingsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()
        if self._writer is not None:
            self._writer.close()

    def add(self, touched: Touched) -> None:
        """One more row."""
        self._rows.append(touched)
        if len(self._rows) >= _GROUP:
            self._write()

    def _write(self) -> None:
        if not self._rows:
            return
        pa, pq = pyarrow()
        schema = _schema(pa)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, schema, compression="zstd", use_dictionary=["rule"])
        columns = [[getattr(row, name) for row in self._rows] for name in schema.names]
        arrays = [pa.array(values, type=field.type) for values, field in zip(columns, schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        self._rows = []


def read_findings(folder: Path) -> Iterator[Touched]:
    """The rows of a corpus's folder, in order; none where there is no such file."""
    path = folder / FILE
    if not path.exists():
        return
    _, pq = pyarrow()
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            for row in batch.to_pylist():
                yield Touched(row["document"], row["rule"], row["count"], tuple(row["mentions"]))


def mentioning(folder: Path, digests: Iterable[str]) -> set[str]:
    """Ids of the documents in which something with one of these digests was found."""
    wanted = frozenset(digests)
    return {row.document for row in read_findings(folder) if not wanted.isdisjoint(row.mentions)}


def _schema(pa: Any) -> pa.Schema:
    text = pa.string()
    columns = [("document", text), ("rule", text), ("count", pa.int64()), ("mentions", pa.list_(text))]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns])
