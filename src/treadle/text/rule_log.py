"""Which rule touched which document: ``rules.parquet`` beside what a step made.

A row is a document's id, the rule's name and the fate it brought, ``dropped`` or ``changed`` (its text, or one of
several examples made from it was dropped); no text and no name. What
a person's erasure dropped is not in it. Rows are written as they come, so memory stays flat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol

from treadle.core.errors import Corrupt
from treadle.text.arrow import pyarrow

RULES_FILE = "rules.parquet"
Fate = Literal["dropped", "changed"]
_FORMAT_KEY, _FORMAT = b"treadle.rules.format", b"1"
_ROWS = 50_000  # in memory at a time


class LogRow(NamedTuple):
    """One document, the rule that touched it, and what that did."""

    document: str
    rule: str
    fate: Fate


class Log(Protocol):
    """What an accounting tells of each document that a rule touched."""

    def add(self, documents: Iterable[str], rule: str, fate: Fate) -> None: ...


class RuleRows(list[LogRow]):
    """A log in memory, for a step whose documents are there anyway."""

    def add(self, documents: Iterable[str], rule: str, fate: Fate) -> None:
        """These documents were touched."""
        self.extend(LogRow(document, rule, fate) for document in documents)

    def carry(self, file: Path) -> None:
        """What was noted before, of what this step goes on with."""
        self.extend(read_rule_log(file))

    def write(self, folder: Path) -> None:
        """The file in a folder."""
        with RuleLog(folder) as log:
            for row in self:
                log.add((row.document,), row.rule, row.fate)


class RuleLog:
    """Writes the file into a folder; a context manager. A log without rows is a file without rows."""

    def __init__(self, folder: Path) -> None:
        """``MissingExtra`` without pyarrow."""
        self._pa, self._pq = pyarrow()
        self._path = folder / RULES_FILE
        self._rows: list[LogRow] = []
        self._writer: Any = None

    def __enter__(self) -> RuleLog:
        text = self._pa.string()
        fields = [self._pa.field(name, text, nullable=False) for name in LogRow._fields]
        schema = self._pa.schema(fields, metadata={_FORMAT_KEY: _FORMAT})
        self._writer = self._pq.ParquetWriter(
            self._path,
            schema,
            compression="zstd",
            use_dictionary=["rule", "fate"],
            write_statistics=["rule"],
            data_page_version="1.0",
            version="2.6",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def add(self, documents: Iterable[str], rule: str, fate: Fate) -> None:
        """These documents were touched."""
        for document in documents:
            self._rows.append(LogRow(document, rule, fate))
            if len(self._rows) >= _ROWS:
                self._flush()

    def carry(self, file: Path) -> None:
        """What was noted before, of what this step goes on with."""
        for row in read_rule_log(file):
            self.add((row.document,), row.rule, row.fate)

    def _flush(self) -> None:
        if self._rows:
            columns = [self._pa.array(column, self._pa.string()) for column in zip(*self._rows, strict=True)]
            self._writer.write_table(self._pa.Table.from_arrays(columns, schema=self._writer.schema))
            self._rows = []


def read_rule_log(path: Path) -> Iterator[LogRow]:
    """The rows of a ``rules.parquet``, in order; ``Corrupt`` when it is none."""
    pa, pq = pyarrow()
    try:
        with pq.ParquetFile(path) as file:
            if (file.schema_arrow.metadata or {}).get(_FORMAT_KEY) != _FORMAT:
                raise Corrupt(f"{path} is no list of rules of format {_FORMAT.decode()}")
            for batch in file.iter_batches(columns=list(LogRow._fields)):
                yield from map(LogRow, *(batch.column(name).to_pylist() for name in LogRow._fields))
    except (pa.ArrowException, OSError) as error:
        raise Corrupt(f"{path} is not Parquet: {str(error).splitlines()[0]}") from None
