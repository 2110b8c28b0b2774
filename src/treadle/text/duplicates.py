"""Which documents went as duplicates of which: every pair in a table, the largest clusters in the account.

The table is ``duplicates.parquet`` beside a corpus: a row for each document that went, with ``cluster`` (the id of the
cluster's first document), ``document``, ``kept`` (the document that stayed for it, mostly the first), ``rule`` and
``similarity`` of the two (1 for exact). It holds ids alone, no text and no name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from treadle.text.arrow import pyarrow
from treadle.text.scratch import Scratch

DUPLICATES_FILE = "duplicates.parquet"
_FORMAT = {b"treadle.duplicates.format": b"1"}
_SHOWN_CLUSTERS = 20
_SHOWN_MEMBERS = 5
_ROWS = 100_000  # in a row group
_PART = 5_000  # of them at a time as Python's objects
_ROOM = 1 << 40  # rows that may be put before others at a time
_LARGEST = f"SELECT cluster FROM clusters ORDER BY size DESC, cluster LIMIT {_SHOWN_CLUSTERS}"
_SCHEMA = (
    "CREATE TABLE rows (place INTEGER PRIMARY KEY, cluster TEXT, document TEXT, kept TEXT, rule TEXT, similarity REAL)",
    "CREATE TABLE clusters (cluster TEXT PRIMARY KEY, size INTEGER, said TEXT) WITHOUT ROWID",
)
NO_DUPLICATES: dict[str, Any] = {"clusters": 0, "dropped": 0, "largest": []}  # as JSON


class Duplicate(NamedTuple):
    """One document that went, in favor of which, and by what rule."""

    cluster: str
    document: str
    kept: str
    rule: str
    similarity: float


class Cluster(NamedTuple):
    """What went, as long as it goes together. ``document`` is its first, and ``locator`` that of the one that stayed;
    ``members`` are the first few that went, with their own."""

    document: str
    locator: str
    size: int
    members: list[dict[str, Any]]


class Duplicates:
    """The duplicates of one account, in the order they went. On disk where they are many."""

    def __init__(self) -> None:
        self._found: Scratch | None = None
        self._before = 0  # a place that leaves room for rows before the others
        self._more = [0, 0]  # clusters and documents of accounts that were read back, which show only some

    def __bool__(self) -> bool:
        return self._found is not None and any(self._found.run("SELECT 1 FROM clusters LIMIT 1"))

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duplicates) and self.to_json() == other.to_json()

    def add(self, row: Duplicate, kept: str, gone: str) -> None:
        """One more, with the locators of the document that stayed and of the one that went."""
        self._scratch.run("INSERT INTO rows VALUES (NULL, ?, ?, ?, ?, ?)", *row)
        member = {"document": row.document, "locator": gone, "rule": row.rule, "similarity": row.similarity}
        self._grow(Cluster(row.cluster, kept, 2, [member]))

    def and_then(self, later: Duplicates) -> Duplicates:
        """Those of both."""
        both = Duplicates()
        for one in (self, later):
            for row in one._rows():
                both._scratch.run("INSERT INTO rows VALUES (NULL, ?, ?, ?, ?, ?)", *row)
            for cluster in one._clusters("ORDER BY cluster"):
                both._grow(cluster)
        both._more = [mine + theirs for mine, theirs in zip(self._more, later._more, strict=True)]
        return both

    def know_again(self, rows: Iterable[Duplicate]) -> None:
        """Put these before the others in the table; the account that was read back counts them already."""
        self._before -= _ROOM
        numbered = ((self._before + place, *row) for place, row in enumerate(rows))
        self._scratch.run_many("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)", numbered)

    def to_json(self) -> dict[str, Any]:
        """How many clusters, how many documents went for them, and the largest clusters."""
        from treadle.text.personal_data import mask

        clusters = dropped = 0
        if self._found is not None:
            ((clusters, dropped),) = self._found.run("SELECT count(*), coalesce(sum(size - 1), 0) FROM clusters")
        return {
            "clusters": clusters + self._more[0],
            "dropped": dropped + self._more[1],
            "largest": [
                {
                    "document": cluster.document,
                    "locator": mask(cluster.locator),
                    "size": cluster.size,
                    "members": [{**member, "locator": mask(member["locator"])} for member in cluster.members],
                }
                for cluster in self._clusters(f"WHERE cluster IN ({_LARGEST}) ORDER BY size DESC, cluster")
            ],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any] | None) -> Duplicates:
        """What an account said of them; the table has them all."""
        found = cls()
        if value:
            shown = [Cluster(**each) for each in value["largest"]]
            for cluster in shown:
                found._grow(cluster)
            told = sum(cluster.size - 1 for cluster in shown)
            found._more = [value["clusters"] - len(shown), value["dropped"] - told]
        return found

    def write(self, folder: Path) -> None:
        """The table; none where there are no duplicates."""
        if self._found is None or not any(self._found.run("SELECT 1 FROM rows LIMIT 1")):
            return
        pa, pq = pyarrow()
        text = pa.string()
        names = [(name, pa.float64() if name == "similarity" else text) for name in Duplicate._fields]
        schema = pa.schema([pa.field(name, kind, False) for name, kind in names], metadata=_FORMAT)
        rows = self._rows()
        with pq.ParquetWriter(
            folder / DUPLICATES_FILE,
            schema,
            compression="zstd",
            use_dictionary=["cluster", "kept", "rule"],
            version="2.6",
        ) as writer:
            # As Arrow's, a row group takes a fifth of what it does as Python's objects.
            parts = (_part(pa, schema, part) for part in iter(lambda: list(islice(rows, _PART)), []))
            for first in parts:
                rest = islice(parts, _ROWS // _PART - 1)
                writer.write_table(pa.Table.from_batches([first, *rest]).combine_chunks(), row_group_size=_ROWS)

    @property
    def _scratch(self) -> Scratch:
        if self._found is None:
            self._found = Scratch(*_SCHEMA)
        return self._found

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        if self._found is not None:
            yield from self._found.run("SELECT cluster, document, kept, rule, similarity FROM rows ORDER BY place")

    def _clusters(self, which: str, *values: Any) -> Iterator[Cluster]:
        if self._found is not None:
            for cluster, size, said in self._found.run(f"SELECT cluster, size, said FROM clusters {which}", *values):
                locator, members = json.loads(said)
                yield Cluster(cluster, locator, size, members)

    def _grow(self, more: Cluster) -> None:
        """Add a cluster, or more members of one."""
        name, locator, size, members = more
        for known in self._clusters("WHERE cluster = ?", name):
            locator, size, members = known.locator, known.size + size - 1, (known.members + members)[:_SHOWN_MEMBERS]
        said = json.dumps([locator, members])
        self._scratch.run("INSERT OR REPLACE INTO clusters VALUES (?, ?, ?)", name, size, said)


def _part(pa: Any, schema: Any, rows: Sequence[Sequence[Any]]) -> Any:
    columns = [pa.array(column, type=field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def read_duplicates(folder: Path) -> Iterator[Duplicate]:
    """Every duplicate of a corpus, in the order they went."""
    _, pq = pyarrow()
    path = folder / DUPLICATES_FILE
    if path.is_file():
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_PART, columns=list(Duplicate._fields)):
                yield from (Duplicate(*row.values()) for row in batch.to_pylist())
