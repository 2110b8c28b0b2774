"""The audit of a ledger: every row, both signed heads, every projection, as they are at one moment.

A keyed code per row tells which row was changed, not only that one was. Others may go on appending meanwhile: the
head outside is read first, so what the database holds afterwards can only be more.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from treadle.core.database import Cursor, Database, Reader
from treadle.core.errors import Corrupt
from treadle.core.fact import Projection, Row, canonical_row
from treadle.core.head import Head, HeadFile
from treadle.core.keys import Keys
from treadle.core.merkle import Frontier, leaf_hash

_NAMED = 1_000  # changed rows and gaps that are named one by one; the rest is counted
_ROWS = "SELECT seq, kind, version, time, body, mac FROM ledger ORDER BY seq"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something ``verify`` found: what kind of thing, which one, and what is wrong with it."""

    kind: str
    ref: str
    detail: str


@dataclass
class Audit:
    """What was found; ``rows`` counts what the ledger holds."""

    rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    _unnamed: int = 0

    def found(self, kind: str, ref: object, detail: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, str(ref), detail))

    def row(self, seq: object, detail: str) -> None:
        """Note a problem with a row; beyond a thousand they are only counted."""
        if len(self.problems) < _NAMED:
            self.found("ledger", seq, detail)
        else:
            self._unnamed += 1

    def close(self) -> None:
        """Say how many were not named."""
        if self._unnamed:
            self.found("ledger", "rows", f"{self._unnamed} more rows are not what was written")


def audit(database: Database, keys: Keys, head_file: HeadFile, projections: Sequence[Projection]) -> Audit:
    """Check everything; damage of any kind is a problem, never an exception."""
    result = Audit()
    outside: Head | None = None
    try:
        outside = head_file.read()
        missing = outside is None
    except Corrupt as error:
        result.found("head", head_file.path.name, str(error))
        missing = False
    try:
        with database.snapshot() as connection:
            for name, detail in database.inspect(connection):
                result.found("database", name, detail)
            _check(connection, keys, outside, projections, result)
    except (Corrupt, sqlite3.Error) as error:
        result.found("database", database.name, f"cannot be read: {error}")
    if missing:
        result.found("head", head_file.path.name, "is missing; it tells whether the database is the latest")
    result.close()
    return result


def _check(
    connection: Reader,
    keys: Keys,
    outside: Head | None,
    projections: Sequence[Projection],
    result: Audit,
) -> None:
    inside, frontier = _inside(connection)
    sizes = {head.size for head in (inside, outside) if head is not None}
    with _Rebuilt(projections) as rebuilt:
        tree, roots = _check_rows(connection, keys, sizes, rebuilt, result)
        for name, head, exact in (("database", inside, True), ("head.json", outside, False)):
            if head is not None:
                _check_head(name, head, keys, roots, tree.size, result, exact=exact)
        if inside is None and result.rows:
            result.found("head", "database", "the signed head is missing from the database")
        elif inside is not None and not result.problems and frontier != tree.encode():
            result.found("head", "database", "its frontier is not that of the rows")
        if not result.problems:
            rebuilt.compare(connection, result)


def _inside(connection: Reader) -> tuple[Head | None, object]:
    for size, root, signature, frontier in connection.execute(
        "SELECT size, root, signature, frontier FROM ledger_head"
    ):
        return Head(size, root, signature), frontier
    return None, None


def _check_rows(
    connection: Reader, keys: Keys, sizes: set[int], rebuilt: _Rebuilt, result: Audit
) -> tuple[Frontier, dict[int, str]]:
    """Check each row; returns the tree and its roots at the sizes asked for."""
    tree, expected, strangers = Frontier(), 1, 0
    roots = {0: tree.root().hex()}
    for seq, kind, version, time, body, code in connection.execute(_ROWS):
        if seq > expected:
            result.row(expected, f"{_rows(expected, seq - 1)} missing")
        expected = seq + 1
        result.rows += 1
        data = _canonical(seq, kind, version, time, body)
        if data is None or keys.mac(data) != code:
            strangers += 1
            result.row(seq, f"row {seq} ({kind}) is not what was written")
        else:
            rebuilt.add(seq, kind, version, time, body, result)
        tree.append(leaf_hash(data or b""))
        if tree.size in sizes:
            roots[tree.size] = tree.root().hex()
    if strangers and strangers == result.rows:
        result.found("key", "project.key", "no row was written with this key: the project's keys were exchanged")
    return tree, roots


def _canonical(seq: int, kind: Any, version: Any, time: Any, body: Any) -> bytes | None:
    """The bytes that were hashed, or None for a row whose columns are not even of the right types."""
    if type(version) is int and isinstance(kind, str) and isinstance(time, str) and isinstance(body, str):
        return canonical_row(seq, kind, version, time, body)
    return None


def _check_head(
    name: str, head: Head, keys: Keys, roots: dict[int, str], held: int, result: Audit, *, exact: bool
) -> None:
    if not head.valid(keys):
        result.found("head", name, "its signature is not this project's")
    elif head.size > held:
        gap = f"{_rows(held + 1, head.size)} missing"
        result.found(
            "head",
            name,
            f"was signed over {head.size} rows, the ledger holds {held}: {gap}, or an older copy was put back",
        )
    elif roots[head.size] != head.root:
        result.found("head", name, f"the first {head.size} rows are not those that were signed")
    elif exact and head.size < held:
        result.found("head", name, f"{_rows(head.size + 1, held)} not signed: added by other means")


def _rows(first: int, last: int) -> str:
    return f"row {first} is" if first == last else f"rows {first} to {last} are"


class _Rebuilt:
    """The projections, drawn again from the rows in memory."""

    def __init__(self, projections: Sequence[Projection]) -> None:
        self._projections = projections
        self._kinds = frozenset[str]().union(*(projection.kinds for projection in projections))
        self._memory = sqlite3.connect(":memory:", isolation_level=None)
        self._memory.executescript("".join(projection.ddl for projection in projections))
        self._cursor = self._memory.cursor()
        self._cursor.execute("BEGIN")

    def __enter__(self) -> _Rebuilt:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.close()

    def add(self, seq: int, kind: str, version: int, time: str, body: str, result: Audit) -> None:
        """Apply one genuine row."""
        if kind not in self._kinds:
            return
        row = Row(seq, kind, version, time, json.loads(body))
        try:
            project(self._projections, self._cursor, row)
        except (sqlite3.Error, KeyError, TypeError) as error:
            result.row(seq, f"row {seq} ({kind}) cannot be projected: {type(error).__name__} {error}")

    def compare(self, connection: Reader, result: Audit) -> None:
        """Every table as stored against the same drawn again."""
        for projection in self._projections:
            sql = f"SELECT * FROM {projection.table}"
            drawn, stored = set(_typed(self._cursor.execute(sql))), set(_typed(connection.execute(sql)))
            for row in sorted(drawn ^ stored, key=repr)[:_NAMED]:
                state = "is missing or was changed" if row in drawn else "does not follow from the ledger"
                result.found("projection", f"{projection.table}:{row[0][1]}", f"row {state}")


def _typed(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Rows whose values carry their types, so that 1, 1.0 and ``'1'`` differ."""
    return (tuple((type(value).__name__, value) for value in row) for row in rows)


def project(projections: Sequence[Projection], cursor: Cursor, row: Row) -> None:
    """Let every projection that wants this kind of row change its table."""
    for projection in projections:
        if row.kind in projection.kinds:
            projection.apply(cursor, row)
