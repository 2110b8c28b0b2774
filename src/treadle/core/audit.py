"""The audit of a ledger: every row, every signed head, every projection, as they are at one moment.

A keyed code per row tells which row was changed, not only that one was. Others may go on appending meanwhile: the
head outside is read first, so what the database holds afterwards can only be more.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count, zip_longest
from operator import eq, itemgetter
from typing import Any

from treadle.core.database import Cursor, Database, Reader
from treadle.core.errors import Corrupt, TreadleError
from treadle.core.fact import Projection, Row, canonical_row
from treadle.core.head import Head, HeadFile
from treadle.core.keys import Keys
from treadle.core.merkle import Frontier
from treadle.core.nodes import WIDTH, Node, Tree

_NAMED = 1_000  # changed rows and gaps that are named one by one; the rest is counted
_INDEXES = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
_BATCH = 32 * WIDTH  # rows read and checked at a time
_ROWS = "SELECT seq, kind, version, time, body, mac FROM ledger ORDER BY seq"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something ``verify`` found: what kind of thing, which one, and what is wrong with it."""

    kind: str
    ref: str
    detail: str


@dataclass(frozen=True, slots=True)
class Published:
    """A head that was kept outside the project, and where."""

    where: str
    head: Head


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


def audit(
    database: Database,
    keys: Keys,
    head_file: HeadFile,
    projections: Sequence[Projection],
    published: Sequence[Published] = (),
) -> Audit:
    """Check everything; damage of any kind is a problem, never an exception."""
    result = Audit()
    outside: Head | None = None
    try:
        outside = head_file.read()
        missing = outside is None
    except Corrupt as error:
        result.found("head", head_file.path.name, str(error))
        missing = False
    with ThreadPoolExecutor(1, "integrity") as beside:  # SQLite's own check needs no Python while it runs
        damage = beside.submit(_damage, database)
        try:
            with database.snapshot() as reader:
                _check(database, reader, keys, outside, projections, published, damage, result)
        except (Corrupt, sqlite3.Error) as error:
            result.found("database", database.name, f"cannot be read: {error}")
    if missing:
        result.found("head", head_file.path.name, "is missing; it tells whether the database is the latest")
    result.close()
    return result


def _check(
    database: Database,
    connection: Reader,
    keys: Keys,
    outside: Head | None,
    projections: Sequence[Projection],
    published: Sequence[Published],
    damage: Future[list[tuple[str, str]]],
    result: Audit,
) -> None:
    inside, frontier = _inside(connection)
    excused = _abandoned(connection, keys)
    elsewhere = [(each.where, each.head) for each in published if (each.head.size, each.head.root) not in excused]
    signed = [(name, head) for name, head in (("database", inside), ("head.json", outside), *elsewhere) if head]
    sizes = {head.size for _, head in signed if type(head.size) is int}
    with _Rebuilt(projections) as rebuilt:
        try:
            tree, roots, nodes = _check_rows(database.batches(connection, _ROWS, _BATCH), keys, sizes, rebuilt, result)
        finally:
            for name, detail in damage.result():
                result.found("database", name, detail)
        for name, head in signed:
            _check_head(name, head, keys, roots, tree.size, result, exact=head is inside)
        if inside is None and result.rows:
            result.found("head", "database", "the signed head is missing from the database")
        elif inside is not None and not result.problems and frontier != tree.encode():
            result.found("head", "database", "its frontier is not that of the rows")
        if not result.problems:
            rebuilt.compare(connection, result)
            _check_nodes(connection, nodes, result)


def _abandoned(connection: Reader, keys: Keys) -> set[tuple[int, str]]:
    """Heads of rows that a restore lost and said so; a row that says it has to be genuine."""
    found: set[tuple[int, str]] = set()
    for row in connection.execute("SELECT seq, kind, version, time, body, mac FROM ledger WHERE kind = 'restored'"):
        data = _canonical(*row[:5])
        if data is not None and keys.mac(data) == row[5]:
            found.update((size, root) for size, root in json.loads(row[4])["abandoned"])
    return found


def _damage(database: Database) -> list[tuple[str, str]]:
    """What the database finds wrong with itself, by name, seen over a connection of its own."""
    try:
        with database.snapshot() as reader:
            return list(database.inspect(reader))
    except (TreadleError, sqlite3.Error) as error:
        return [("integrity", f"cannot be checked: {error}")]


def _inside(connection: Reader) -> tuple[Head | None, object]:
    for size, root, signature, frontier in connection.execute(
        "SELECT size, root, signature, frontier FROM ledger_head"
    ):
        return Head(size, root, signature), frontier
    return None, None


def _check_rows(
    batches: Iterable[list[Any]], keys: Keys, sizes: set[int], rebuilt: _Rebuilt, result: Audit
) -> tuple[Frontier, dict[int, str], list[Node]]:
    """Check each row; returns the tree, its roots at the sizes asked for, and its nodes."""
    tree, expected, strangers = Tree(sizes), 1, 0
    for rows in batches:
        data = _as_written(rows, expected, keys)
        genuine = rows
        if data is None:
            data = [_canonical(*row[:5]) for row in rows]
            codes = [None if each is None else keys.mac(each) for each in data]
            genuine = [row for row, code in zip(rows, codes, strict=True) if code is not None and code == row[5]]
            _name(rows, codes, expected, result)
            strangers += len(rows) - len(genuine)
        expected = rows[-1][0] + 1
        rebuilt.add_all(genuine, result)
        tree.extend([sha256(b"\x00" + (each or b"")).digest() for each in data])
    result.rows = tree.size
    if strangers and strangers == result.rows:
        result.found("key", "project.key", "no row was written with this key: the project's keys were exchanged")
    return tree.frontier, tree.roots, tree.nodes


def _as_written(rows: list[Any], expected: int, keys: Keys) -> Sequence[bytes | None] | None:
    """The bytes of each row where all follow on each other and have their codes; None when one does not."""
    try:
        data = [canonical_row(seq, kind, version, time, body) for seq, kind, version, time, body, _ in rows]
    except TypeError:
        return None
    followed = all(map(eq, map(itemgetter(0), rows), count(expected)))
    typed = {type(row[2]) for row in rows} == {int} and {type(row[4]) for row in rows} == {str}
    return data if followed and typed and keys.macs(data) == [row[5] for row in rows] else None


def _name(rows: list[Any], codes: list[str | None], expected: int, result: Audit) -> None:
    """Say which rows of a batch are missing, and which are not what was written."""
    for row, code in zip(rows, codes, strict=True):
        seq, kind = row[0], row[1]
        if seq > expected:
            result.row(expected, f"{_rows(expected, seq - 1)} missing")
        expected = seq + 1
        if code is None or code != row[5]:
            result.row(seq, f"row {seq} ({kind}) is not what was written")


def _check_nodes(connection: Reader, nodes: list[Node], result: Audit) -> None:
    """The tree's nodes as stored against those of the rows."""
    stored = {(level, place): text for level, place, text in connection.execute("SELECT * FROM ledger_nodes")}
    for level, place, text in nodes:
        if stored.pop((level, place), None) != text:
            result.found("projection", f"ledger_nodes:{level}.{place}", "row is missing or was changed")
    for level, place in list(stored)[:_NAMED]:
        result.found("projection", f"ledger_nodes:{level}.{place}", "row does not follow from the ledger")


def _canonical(seq: int, kind: Any, version: Any, time: Any, body: Any) -> bytes | None:
    """The bytes that were hashed, or None for a row whose columns are not even of the right types."""
    if type(version) is int and type(kind) is type(time) is type(body) is str:
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
        self._wanted = {
            kind: [each.apply for each in projections if kind in each.kinds]
            for kind in frozenset[str]().union(*(projection.kinds for projection in projections))
        }
        self._memory = sqlite3.connect(":memory:", isolation_level=None)
        self._memory.executescript("".join(projection.ddl for projection in projections))
        for (index,) in self._memory.execute(_INDEXES).fetchall():  # nobody looks anything up by them here
            self._memory.execute(f'DROP INDEX "{index}"')
        self._cursor = self._memory.cursor()
        self._cursor.execute("BEGIN")

    def __enter__(self) -> _Rebuilt:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.close()

    def add_all(self, rows: Iterable[tuple[Any, ...]], result: Audit) -> None:
        """Apply genuine rows."""
        wanted, loads, cursor = self._wanted, json.loads, self._cursor
        for seq, kind, version, time, body, _ in rows:
            if kind in wanted:
                row = Row(seq, kind, version, time, loads(body))
                try:
                    for apply in wanted[kind]:
                        apply(cursor, row)
                except (sqlite3.Error, KeyError, TypeError) as error:
                    result.row(seq, f"row {seq} ({kind}) cannot be projected: {type(error).__name__} {error}")

    def compare(self, connection: Reader, result: Audit) -> None:
        """Every table as stored against the same drawn again."""
        for projection in self._projections:
            sql = f"SELECT * FROM {projection.table}"
            drawn, stored = _differing(self._cursor.execute(sql), connection.execute(sql))
            for row in sorted(drawn ^ stored, key=repr)[:_NAMED]:
                state = "is missing or was changed" if row in drawn else "does not follow from the ledger"
                result.found("projection", f"{projection.table}:{row[0][1]}", f"row {state}")


def _differing(drawn: Iterable[tuple[Any, ...]], stored: Iterable[tuple[Any, ...]]) -> tuple[set[Any], set[Any]]:
    """The rows that only one of two tables may have. Values carry their types, so that 1, 1.0 and ``'1'`` differ."""
    here, there = set(), set()
    for one, other in zip_longest(drawn, stored):  # both were filled in the same order, so nearly all pairs are equal
        if one != other or [*map(type, one)] != [*map(type, other)]:
            here.add(_typed(one))
            there.add(_typed(other))
    return here - {()}, there - {()}


def _typed(row: tuple[Any, ...] | None) -> tuple[Any, ...]:
    return tuple((type(value).__name__, value) for value in row or ())


def project(projections: Sequence[Projection], cursor: Cursor, row: Row) -> None:
    """Let every projection that wants this kind of row change its table."""
    for projection in projections:
        if row.kind in projection.kinds:
            projection.apply(cursor, row)
