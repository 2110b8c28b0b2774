"""The ledger: the facts, append-only, one Merkle log of canonical rows in the table ``ledger``.

A row is ``{"body", "kind", "seq", "time", "version"}`` in canonical JSON; its hash is a leaf of an RFC 6962 tree. Each transaction
signs the new tree head inside the database, and copies it to ``head.json`` outside, so that putting an older database back is
noticed. A keyed code per row tells which row was changed, not only that one was.

Query tables are projections: filled in the transaction that appends, and at any time rebuilt from the rows and compared.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from treadle.core.database import Database
from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt
from treadle.core.keys import Keys, verify_signature
from treadle.core.merkle import Frontier, leaf_hash

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, version INTEGER NOT NULL, time TEXT NOT NULL,
    body TEXT NOT NULL, mac TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS ledger_kind ON ledger (kind, seq);
CREATE TABLE IF NOT EXISTS ledger_head (
    id INTEGER PRIMARY KEY CHECK (id = 1), size INTEGER NOT NULL, frontier TEXT NOT NULL,
    root TEXT NOT NULL, signature TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something to be appended: a kind, its version, and a body of ids, digests, numbers, times and names."""

    kind: str
    body: dict[str, Any]
    version: int = 1


@dataclass(frozen=True, slots=True)
class Row:
    """A fact in its place. ``seq`` counts from 1; ``time`` is UTC in ISO 8601."""

    seq: int
    kind: str
    version: int
    time: str
    body: dict[str, Any]

    def canonical(self) -> bytes:
        """The bytes that are hashed."""
        return _canonical(self.seq, self.kind, self.version, self.time, canonical_json(self.body))


@dataclass(frozen=True, slots=True)
class Problem:
    """Something ``verify`` found: what kind of thing, which one, and what is wrong with it."""

    kind: str
    ref: str
    detail: str


@dataclass(frozen=True)
class Projection:
    """A query table: its DDL, and how each row of the named kinds changes it."""

    table: str
    ddl: str
    kinds: frozenset[str]
    apply: Callable[[sqlite3.Cursor, Row], None] = field(compare=False)


def now() -> str:
    """The present as ISO 8601 UTC with microseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Ledger:
    """Append and read facts. Many processes may append; each transaction is serialized by the database."""

    def __init__(
        self, database: Database, keys: Keys, head_file: Path, projections: Sequence[Projection]
    ) -> None:
        self.database = database
        self._keys = keys
        self._head_file = head_file
        self._projections = tuple(projections)
        database.script(_SCHEMA + "".join(projection.ddl for projection in projections))

    # -- writing

    def append(self, *facts: Fact, sync: bool = False) -> list[Row]:
        """Append facts in one transaction. ``sync`` for those that must survive a loss of power once acknowledged."""
        rows: list[Row] = []
        with self.database.transaction(sync=sync) as cursor:
            frontier = self._frontier(cursor)
            for fact in facts:
                row = Row(frontier.size + 1, fact.kind, fact.version, now(), fact.body)
                body = canonical_json(row.body)
                data = _canonical(row.seq, row.kind, row.version, row.time, body)
                cursor.execute(
                    "INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?)",
                    (row.seq, row.kind, row.version, row.time, body.decode(), self._keys.mac(data)),
                )
                frontier.append(leaf_hash(data))
                _project(self._projections, cursor, row)
                rows.append(row)
            root = frontier.root().hex()
            signature = self._keys.sign(_head_message(frontier.size, root))
            cursor.execute(
                "INSERT INTO ledger_head VALUES (1, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "size = excluded.size, frontier = excluded.frontier, root = excluded.root, "
                "signature = excluded.signature",
                (frontier.size, frontier.encode(), root, signature),
            )
        self._publish(frontier.size, root, signature, sync=sync)
        return rows

    @staticmethod
    def _frontier(cursor: sqlite3.Cursor) -> Frontier:
        row = cursor.execute("SELECT size, frontier FROM ledger_head WHERE id = 1").fetchone()
        return Frontier.decode(row[0], row[1]) if row else Frontier()

    def _publish(self, size: int, root: str, signature: str, *, sync: bool) -> None:
        """Copy the head outside the database, never replacing a later one by an earlier one."""
        with self._head_file.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            present = self._outside_head()
            if present is not None and present["size"] > size:
                return
            head = {"public_key": self._keys.public, "root": root, "signature": signature, "size": size}
            temporary = self._head_file.with_suffix(".tmp")
            with temporary.open("wb") as file:
                file.write(canonical_json(head))
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(self._head_file)

    # -- reading

    def rows(self, *kinds: str, after: int = 0) -> Iterator[Row]:
        """Rows in order, of the given kinds or of all."""
        where = f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        sql = f"SELECT seq, kind, version, time, body FROM ledger WHERE seq > ?{where} ORDER BY seq"
        for seq, kind, version, time, body in self.database.query(sql, (after, *kinds)):
            yield Row(seq, kind, version, time, json.loads(body))

    def last(self, kind: str) -> Row | None:
        """The latest row of a kind."""
        sql = "SELECT seq, kind, version, time, body FROM ledger WHERE kind = ? ORDER BY seq DESC LIMIT 1"
        for seq, kind_, version, time, body in self.database.query(sql, (kind,)):
            return Row(seq, kind_, version, time, json.loads(body))
        return None

    def size(self) -> int:
        """How many rows there are."""
        return int(self.database.query("SELECT count(*) FROM ledger")[0][0])

    # -- verifying

    def verify(self) -> list[Problem]:
        """Every row against its code, the tree against both signed heads, every projection against the rows."""
        problems: list[Problem] = []
        roots = self._verify_rows(problems)
        self._verify_heads(roots, problems)
        if not problems:
            problems.extend(self._verify_projections())
        return problems

    def _verify_rows(self, problems: list[Problem]) -> list[str]:
        """Check each row; returns the root after each size, from 0."""
        frontier, roots, expected = Frontier(), [Frontier().root().hex()], 1
        sql = "SELECT seq, kind, version, time, body, mac FROM ledger ORDER BY seq"
        for seq, kind, version, time, body, mac in self.database.query(sql):
            while expected < seq:
                problems.append(Problem("ledger", str(expected), f"row {expected} is missing"))
                expected += 1
            expected = seq + 1
            data = _canonical(seq, kind, version, time, str(body).encode())
            if self._keys.mac(data) != mac:
                problems.append(Problem("ledger", str(seq), f"row {seq} ({kind}) is not what was written"))
            frontier.append(leaf_hash(data))
            roots.append(frontier.root().hex())
        return roots

    def _verify_heads(self, roots: list[str], problems: list[Problem]) -> None:
        size = len(roots) - 1
        inside = self.database.query("SELECT size, root, signature FROM ledger_head WHERE id = 1")
        if inside:
            size_, root, signature = inside[0]
            self._verify_head("the head in the database", size_, root, signature, roots, problems, exact=True)
        elif size:
            problems.append(Problem("head", "database", "the signed head is missing from the database"))
        try:
            outside = self._outside_head()
        except Corrupt as error:
            problems.append(Problem("head", self._head_file.name, str(error)))
            return
        if outside is None:
            if size:
                problems.append(Problem("head", self._head_file.name, f"{self._head_file} is missing"))
            return
        self._verify_head(
            str(self._head_file.name),
            outside["size"],
            outside["root"],
            outside["signature"],
            roots,
            problems,
            exact=False,
        )

    def _verify_head(
        self,
        name: str,
        size: int,
        root: str,
        signature: str,
        roots: list[str],
        problems: list[Problem],
        *,
        exact: bool,
    ) -> None:
        held = len(roots) - 1
        if not verify_signature(self._keys.public, _head_message(size, root), signature):
            problems.append(Problem("head", name, "its signature is not this project's"))
        elif size > held:
            detail = f"was signed over {size} rows, the ledger holds {held}: rows were removed or an older copy put back"
            problems.append(Problem("head", name, detail))
        elif roots[size] != root:
            problems.append(Problem("head", name, f"the first {size} rows are not those that were signed"))
        elif exact and size < held:
            problems.append(
                Problem("head", name, f"{held - size} rows were added after it without being signed")
            )

    def _outside_head(self) -> dict[str, Any] | None:
        try:
            head = json.loads(self._head_file.read_bytes())
            return {
                "size": int(head["size"]),
                "root": str(head["root"]),
                "signature": str(head["signature"]),
            }
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"{self._head_file} is not a signed head: {error}") from None

    def _verify_projections(self) -> list[Problem]:
        memory = sqlite3.connect(":memory:", isolation_level=None)
        memory.executescript("".join(projection.ddl for projection in self._projections))
        cursor = memory.cursor()
        cursor.execute("BEGIN")
        for row in self.rows():
            _project(self._projections, cursor, row)
        problems = []
        for projection in self._projections:
            sql = f"SELECT * FROM {projection.table}"
            rebuilt = set(cursor.execute(sql).fetchall())
            stored = set(self.database.query(sql))
            for row_ in sorted(rebuilt ^ stored, key=repr)[:10]:
                state = "is missing" if row_ in rebuilt else "does not follow from the ledger"
                problems.append(Problem("projection", f"{projection.table}:{row_[0]}", f"row {state}"))
        memory.close()
        return problems


def _project(projections: Sequence[Projection], cursor: sqlite3.Cursor, row: Row) -> None:
    for projection in projections:
        if row.kind in projection.kinds:
            projection.apply(cursor, row)


def _canonical(seq: int, kind: str, version: int, time: str, body: bytes) -> bytes:
    envelope = canonical_json({"kind": kind, "seq": seq, "time": time, "version": version})
    return b'{"body":' + body + b"," + envelope[1:]


def _head_message(size: int, root: str) -> bytes:
    return f"treadle ledger 1\n{size}\n{root}\n".encode()
