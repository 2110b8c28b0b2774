"""Which documents went as duplicates of which: every pair in a table, the largest clusters in the account.

The table is ``duplicates.parquet`` beside a corpus: a row for each document that went, with ``cluster`` (the id of the
cluster's first document), ``document``, ``kept`` (the document that stayed for it, mostly the first), ``rule`` and
``similarity`` of the two (1 for exact). It holds ids alone, no text and no name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from treadle.text.arrow import pyarrow

DUPLICATES_FILE = "duplicates.parquet"
_FORMAT = {b"treadle.duplicates.format": b"1"}
_SHOWN_CLUSTERS = 20
_SHOWN_MEMBERS = 5
_ROWS = 100_000
NO_DUPLICATES: dict[str, Any] = {"clusters": 0, "dropped": 0, "largest": []}  # as JSON


class Duplicate(NamedTuple):
    """One document that went, in favor of which, and by what rule."""

    cluster: str
    document: str
    kept: str
    rule: str
    similarity: float


@dataclass(slots=True)
class Cluster:
    """What went, as long as it goes together. ``document`` is its first, and ``locator`` that of the one that stayed;
    ``members`` are the first few that went, with their own."""

    document: str
    locator: str
    size: int = 1
    members: list[dict[str, Any]] = field(default_factory=list)


class Duplicates:
    """The duplicates of one account, in the order they went."""

    def __init__(self) -> None:
        self._rows: list[Duplicate] = []
        self._clusters: dict[str, Cluster] = {}
        self._more = [0, 0]  # clusters and documents of accounts that were read back, which show only some

    def __bool__(self) -> bool:
        return bool(self._clusters)

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duplicates) and self.to_json() == other.to_json()

    def add(self, row: Duplicate, kept: str, gone: str) -> None:
        """One more, with the locators of the document that stayed and of the one that went."""
        self._rows.append(row)
        cluster = self._clusters.setdefault(row.cluster, Cluster(row.cluster, kept))
        cluster.size += 1
        if len(cluster.members) < _SHOWN_MEMBERS:
            cluster.members.append(
                {"document": row.document, "locator": gone, "rule": row.rule, "similarity": row.similarity}
            )

    def and_then(self, later: Duplicates) -> Duplicates:
        """Those of both."""
        both = Duplicates()
        both._rows = self._rows + later._rows
        for cluster in (*self._clusters.values(), *later._clusters.values()):
            known = both._clusters.get(cluster.document)
            if known is None:
                both._clusters[cluster.document] = cluster
                continue
            members = (known.members + cluster.members)[:_SHOWN_MEMBERS]
            both._clusters[cluster.document] = Cluster(
                known.document, known.locator, known.size + cluster.size - 1, members
            )
        both._more = [mine + theirs for mine, theirs in zip(self._more, later._more, strict=True)]
        return both

    def know_again(self, rows: Iterable[Duplicate]) -> None:
        """Put these before the others in the table; the account that was read back counts them already."""
        self._rows = [*rows, *self._rows]

    def to_json(self) -> dict[str, Any]:
        """How many clusters, how many documents went for them, and the largest clusters."""
        from treadle.text.personal_data import mask

        ordered = sorted(self._clusters.values(), key=lambda cluster: (-cluster.size, cluster.document))
        return {
            "clusters": len(ordered) + self._more[0],
            "dropped": sum(cluster.size - 1 for cluster in ordered) + self._more[1],
            "largest": [
                {
                    "document": cluster.document,
                    "locator": mask(cluster.locator),
                    "size": cluster.size,
                    "members": [{**member, "locator": mask(member["locator"])} for member in cluster.members],
                }
                for cluster in ordered[:_SHOWN_CLUSTERS]
            ],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any] | None) -> Duplicates:
        """What an account said of them; the table has them all."""
        found = cls()
        if value:
            found._clusters = {each["document"]: Cluster(**each) for each in value["largest"]}
            shown = sum(cluster.size - 1 for cluster in found._clusters.values())
            found._more = [value["clusters"] - len(found._clusters), value["dropped"] - shown]
        return found

    def write(self, folder: Path) -> None:
        """The table; none where there are no duplicates."""
        if not self._rows:
            return
        pa, pq = pyarrow()
        text = pa.string()
        names = [(name, pa.float64() if name == "similarity" else text) for name in Duplicate._fields]
        schema = pa.schema([pa.field(name, kind, False) for name, kind in names], metadata=_FORMAT)
        with pq.ParquetWriter(
            folder / DUPLICATES_FILE,
            schema,
            compression="zstd",
            use_dictionary=["cluster", "kept", "rule"],
            version="2.6",
        ) as writer:
            for start in range(0, len(self._rows), _ROWS):
                columns = zip(*self._rows[start : start + _ROWS], strict=True)
                arrays = [pa.array(column, type=kind) for column, (_, kind) in zip(columns, names, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=_ROWS)


def read_duplicates(folder: Path) -> Iterator[Duplicate]:
    """Every duplicate of a corpus, in the order they went."""
    _, pq = pyarrow()
    path = folder / DUPLICATES_FILE
    if path.is_file():
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=list(Duplicate._fields)):
                yield from (Duplicate(*row.values()) for row in batch.to_pylist())
