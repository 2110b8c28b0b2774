"""The audit of a ledger: every row, every signed head, every projection, as they are at one moment.

A keyed code per row tells which row was changed, not only that one was. Others may go on appending meanwhile: the
head outside is read first, so what the database holds afterwards can only be more.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from operator import eq, itemgetter
from pathlib import Path
from typing import Any

from treadle.core.database import Cursor, Database, Reader
from treadle.core.errors import Corrupt, TreadleError
from treadle.core.fact import Projection, Row, canonical_row, canonical_rows
from treadle.core.head import Head, HeadFile
from treadle.core.intake import uncollected
from treadle.core.keys import Keys
from treadle.core.merkle import Frontier
from treadle.core.nodes import WIDTH, Node, Tree
from treadle.core.redrawing import Beside, Doubtful, Drawing, Redrawn, several_processors
from treadle.core.sqlite import SqliteDatabase

_NAMED = 1_000  # changed rows and gaps that are named one by one; the rest is counted
MANY = 100_000  # rows; of fewer the projections are drawn again in this process
_BATCH = 32 * WIDTH  # rows read and checked at a time
RESTORED = "SELECT seq, kind, version, time, body, mac FROM ledger WHERE kind = 'restored'"
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
    if isinstance(database, SqliteDatabase) and several_processors():
        try:
            result = _audited(database, keys, head_file, projections, published, beside=database.path)
            if result is not None and not result.problems:
                return result
        except Doubtful:
            pass
    result = _audited(database, keys, head_file, projections, published)
    assert result is not None
    return result


def _audited(
    database: Database,
    keys: Keys,
    head_file: HeadFile,
    projections: Sequence[Projection],
    published: Sequence[Published],
    beside: Path | None = None,
) -> Audit | None:
    """Everything that is found, with the help of another process where ``beside`` names the database; None where the
    ledger is too small for that."""
    result = Audit()
    outside: Head | None = None
    try:
        outside = head_file.read()
        missing = outside is None
    except Corrupt as error:
        result.found("head", head_file.path.name, str(error))
        missing = False
    if beside is not None and (outside is None or outside.size < MANY):
        return None
    with ThreadPoolExecutor(1, "integrity") as aside:  # SQLite's own check needs no Python while it runs
        damage = aside.submit(_damage, database)
        drawing = (
            Redrawn(projections) if beside is None else Beside(beside, projections)
        )  # first: its moment is earlier
        try:
            with closing(drawing), database.snapshot() as reader, uncollected():
                _check(database, reader, keys, outside, drawing, published, damage, result)
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
    drawing: Drawing,
    published: Sequence[Published],
    damage: Future[list[tuple[str, str]]],
    result: Audit,
) -> None:
    inside, frontier = _inside(connection)
    excused = abandoned(connection.execute(RESTORED), keys)
    elsewhere = [(each.where, each.head) for each in published if (each.head.size, each.head.root) not in excused]
    signed = [(name, head) for name, head in (("database", inside), ("head.json", outside), *elsewhere) if head]
    sizes = {head.size for _, head in signed if type(head.size) is int}
    try:
        tree, roots, nodes = _check_rows(database.batches(connection, _ROWS, _BATCH), keys, sizes, drawing, result)
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
        _check_nodes(connection, nodes, result)  # first: another process may still be drawing
        for name, detail in drawing.compare(connection):
            result.found("projection", name, detail)


def abandoned(rows: Iterable[Sequence[Any]], keys: Keys) -> set[tuple[int, str]]:
    """Heads of rows that a restore lost and said so, from the rows of ``RESTORED``; each has to be genuine."""
    found: set[tuple[int, str]] = set()
    for row in rows:
        data = _canonical(row[0], row[1], row[2], row[3], row[4])
        if data is not None and keys.mac(data) == row[5]:
            body = json.loads(row[4])
            found.update((size, root) for size, root in (*body["abandoned"], *body.get("passed", ())))
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
    batches: Iterable[list[Any]], keys: Keys, sizes: set[int], drawing: Drawing, result: Audit
) -> tuple[Frontier, dict[int, str], list[Node]]:
    """Check each row; returns the tree, its roots at the sizes asked for, and its nodes."""
    tree, expected, strangers = Tree(sizes), 1, 0
    for rows in batches:
        data = _as_written(rows, expected, keys)
        genuine, whole = rows, data
        if data is None:
            data = [_canonical(*row[:5]) for row in rows]
            codes = [None if each is None else keys.mac(each) for each in data]
            genuine = [row for row, code in zip(rows, codes, strict=True) if code is not None and code == row[5]]
            _name(rows, codes, expected, result)
            strangers += len(rows) - len(genuine)
        expected = rows[-1][0] + 1
        for seq, detail in drawing.add_all(genuine, whole):
            result.row(seq, detail)
        tree.extend([sha256(b"\x00" + (each or b"")).digest() for each in data])
    result.rows = tree.size
    if strangers and strangers == result.rows:
        result.found("key", "project.key", "no row was written with this key: the project's keys were exchanged")
    return tree.frontier, tree.roots, tree.nodes


def _as_written(rows: list[Any], expected: int, keys: Keys) -> Sequence[bytes | None] | None:
    """The bytes of each row where all follow on each other and have their codes; None when one does not."""
    try:
        data = canonical_rows(rows)
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


def project(projections: Sequence[Projection], cursor: Cursor, row: Row) -> None:
    """Let every projection that wants this kind of row change its table."""
    for projection in projections:
        if row.kind in projection.kinds:
            projection.apply(cursor, row)
