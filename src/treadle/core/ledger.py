"""The ledger: the facts, append-only, one Merkle log of canonical rows in the table ``ledger``.

A row is ``{"body", "kind", "seq", "time", "version"}`` in canonical JSON; its hash is a leaf of an RFC 6962 tree.
Each transaction signs the new tree head inside the database. A copy of the head lies outside (``head.json``), so
that putting an older database back is noticed. Replacing a file costs ten times an append, so the copy follows by
itself: at once when ``sync`` is asked for, else within ``PUBLISH_SECONDS``, at the end of an exclusive block, and
when the ledger is closed. A command that ended normally has therefore published all it wrote. What the copy cannot
show is that rows younger than this delay were cut off together with the head inside, after their writer was killed;
the next to open the ledger makes good for that.

Query tables are projections: filled in the transaction that appends, and at any time rebuilt from the rows and
compared.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from treadle.core import nodes, proof
from treadle.core.audit import RESTORED, Audit, abandoned, audit, project
from treadle.core.audit import Problem as Problem
from treadle.core.audit import Published as Published
from treadle.core.database import Cursor, Database, Lost
from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt, UserError
from treadle.core.fact import Fact as Fact
from treadle.core.fact import Projection as Projection
from treadle.core.fact import Row as Row
from treadle.core.fact import canonical_row
from treadle.core.fact import now as now
from treadle.core.head import Head, HeadFile, Stamp
from treadle.core.keys import Keys
from treadle.core.merkle import EMPTY_ROOT, Frontier, leaf_hash

PUBLISH_SECONDS = 0.25
_PAGE = 2_000  # rows read at a time
_FIRST_BACK = 20  # and the first time, where it is likely that few are wanted

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger (
    seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, version INTEGER NOT NULL, time TEXT NOT NULL,
    body TEXT NOT NULL, mac TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS ledger_kind ON ledger (kind, seq);
CREATE TABLE IF NOT EXISTS ledger_head (
    id INTEGER PRIMARY KEY CHECK (id = 1), size INTEGER NOT NULL, frontier TEXT NOT NULL,
    root TEXT NOT NULL, signature TEXT NOT NULL);
"""

_SET_HEAD = (
    "INSERT INTO ledger_head VALUES (1, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET size = excluded.size, "
    "frontier = excluded.frontier, root = excluded.root, signature = excluded.signature"
)

_log = logging.getLogger(__name__)


class Ledger:
    """Append and read facts. Many processes may append; each transaction is serialized by the database."""

    def __init__(self, database: Database, keys: Keys, head_file: Path, projections: Sequence[Projection]) -> None:
        self.database = database
        self._keys = keys
        self._file = HeadFile(head_file, keys)
        self._projections = tuple(projections)
        self._outside: Head | None = None
        self._stamp: Stamp | None = None
        self._latest: Head | None = None
        self._published = 0
        self._lock = threading.Lock()
        self._publishing = threading.Lock()
        self._ticker: threading.Thread | None = None
        self._closed = threading.Event()
        database.script(_SCHEMA + nodes.SCHEMA + "".join(projection.ddl for projection in projections))
        self._catch_up()

    def _catch_up(self) -> None:
        """Make the first head of a new ledger; publish what a killed writer could not."""
        rows = self.database.query("SELECT size, root, signature FROM ledger_head WHERE id = 1")
        if rows:
            head = Head(*rows[0])
            if head.valid(self._keys):
                self._latest = head
                self._follow(head)
                self.publish()
        elif not self.database.query("SELECT 1 FROM ledger LIMIT 1"):
            self._file.create(Head.signed(0, EMPTY_ROOT.hex(), self._keys))

    def _follow(self, head: Head) -> None:
        """Let go of a head outside that a restore on another machine gave up, as a genuine row says."""
        try:
            outside = self._file.read()
        except Corrupt:
            return  # as it is, for verify to name
        if outside is None or outside.size < head.size or outside == head:
            return
        if (outside.size, outside.root) in abandoned(self.database.query(RESTORED), self._keys):
            self.database.sync()
            self._file.follow(head, outside)

    # -- writing

    def append(self, *facts: Fact, sync: bool = False) -> list[Row]:
        """Append facts in one transaction. ``sync`` for those that must survive a loss of power once acknowledged.

        ``Corrupt`` when the ledger is not the one that its head was signed over; nothing is written then.
        """
        try:
            rows, head = self._write(facts, sync)
        except Lost:  # nothing was kept; over another connection it may be
            rows, head = self._write(facts, sync)
        with self._lock:
            if self._latest is None or self._latest.size < head.size:
                self._latest = head
        if sync or self._closed.is_set():
            self.publish()
        else:
            self._start_ticker()
        return rows

    def _write(self, facts: Sequence[Fact], sync: bool) -> tuple[list[Row], Head]:
        """One transaction; ``Lost`` where nothing was kept, ``UserError`` where that cannot be told."""
        rows: list[Row] = []
        mac, head = "", None
        try:
            with self.database.transaction(sync=sync) as cursor:
                frontier = self._frontier(cursor)
                for fact in facts:
                    row = Row(frontier.size + 1, fact.kind, fact.version, now(), fact.body)
                    body = canonical_json(row.body).decode()
                    data = canonical_row(row.seq, row.kind, row.version, row.time, body)
                    mac = self._keys.mac(data)
                    values = (row.seq, row.kind, row.version, row.time, body, mac)
                    cursor.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?)", values)
                    nodes.store(cursor, nodes.completed(row.seq, frontier.append(leaf_hash(data))))
                    project(self._projections, cursor, row)
                    rows.append(row)
                head = Head.signed(frontier.size, frontier.root().hex(), self._keys)
                cursor.execute(_SET_HEAD, (head.size, frontier.encode(), head.root, head.signature))
        except Lost as error:
            if error.written is False or not (rows and self._kept(rows[-1], mac, error)):
                raise
        assert head is not None  # it is signed before anything can be committed
        return rows, head

    def _kept(self, row: Row, mac: str, error: Lost) -> bool:
        """Whether a row is there after the connection broke while it was committed."""
        try:
            # A transaction, for it begins only once the server has done with the other one.
            with self.database.transaction() as cursor:
                found = cursor.execute("SELECT mac FROM ledger WHERE seq = ?", (row.seq,)).fetchone()
        except UserError:
            raise UserError(str(error)) from None
        return found is not None and found[0] == mac

    def _frontier(self, cursor: Cursor) -> Frontier:
        """The tree so far; ``Corrupt`` when it is not the one the head outside belongs to."""
        row = cursor.execute("SELECT size, root, signature, frontier FROM ledger_head WHERE id = 1").fetchone()
        held = cursor.execute("SELECT coalesce(max(seq), 0) FROM ledger").fetchone()[0]
        frontier, root = Frontier(), EMPTY_ROOT.hex()
        if row is not None:
            head = Head(*row[:3])
            try:
                frontier, root = Frontier.decode(row[0], row[3]), head.root
            except (ValueError, TypeError, AttributeError):
                root = ""
            # What this process signed itself just now need not be checked again.
            if head != self._latest and not head.valid(self._keys):
                root = ""
        if frontier.root().hex() != root or frontier.size != held:
            raise Corrupt("the ledger is not what its head in the database says; run treadle verify")
        self._refuse_older(frontier.size, root)
        return frontier

    def owner(self) -> str | None:
        """The public key of another project, when it signed this ledger and we did not; None otherwise."""
        heads = self.database.query("SELECT size, root, signature FROM ledger_head WHERE id = 1")
        first = self.database.query("SELECT body FROM ledger WHERE seq = 1")
        if not heads or not first or Head(*heads[0]).valid(self._keys):
            return None
        try:
            named = json.loads(first[0][0])["public_key"]
        except (ValueError, KeyError, TypeError):
            return None
        return named if named != self._keys.public and Head(*heads[0]).valid_for(named) else None

    def _refuse_older(self, size: int, root: str) -> None:
        """Under the write lock nobody can have published more than the database holds, or an older one was put back."""
        stamp = self._file.stamp()
        if stamp != self._stamp:
            try:
                self._outside = self._file.read()
            except Corrupt:
                self._outside = None
            self._stamp = stamp
        outside = self._outside
        if outside is not None and (outside.size > size or (outside.size == size and outside.root != root)):
            raise Corrupt(
                f"{self.database.place} holds {size} rows where {self._file.path.name} says {outside.size}: an older "
                "copy was put back; put the newer one in its place, treadle verify tells more; where another "
                f"machine restored a backup on purpose, copy its {self._file.path.name} over this one"
            )

    def publish(self) -> None:
        """Copy the latest head that this process knows of outside the database, once its rows are on the disk."""
        with self._publishing:
            head = self._latest
            if head is None or head.size <= self._published:
                return
            try:
                self.database.sync()
                self._file.publish(head)
            except (OSError, UserError) as error:  # the rows are written; the next one tries again
                _log.warning("the head of the ledger cannot be published: %s", error)
                return
            self._published = head.size

    def _start_ticker(self) -> None:
        with self._lock:
            if self._ticker is None:
                self._ticker = threading.Thread(target=self._tick, name="ledger", daemon=True)
                self._ticker.start()

    def _tick(self) -> None:
        while not self._closed.wait(PUBLISH_SECONDS):
            self.publish()

    def close(self) -> None:
        """Publish the latest head."""
        self._closed.set()
        if self._ticker is not None:
            self._ticker.join()
        self.publish()

    # -- reading

    def rows(self, *kinds: str, after: int = 0) -> Iterator[Row]:
        """Rows in order, of the given kinds or of all, as many as there are when the first is asked for."""
        where = f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        sql = (
            f"SELECT seq, kind, version, time, body FROM ledger WHERE seq > ? AND seq <= ?{where} ORDER BY seq LIMIT ?"
        )
        last = int(self.database.query("SELECT coalesce(max(seq), 0) FROM ledger")[0][0])
        page = self.database.query(sql, (after, last, *kinds, _PAGE))
        while page:
            yield from (_row(*values) for values in page)
            page = self.database.query(sql, (page[-1][0], last, *kinds, _PAGE)) if len(page) == _PAGE else []

    def rows_back(self, *kinds: str) -> Iterator[Row]:
        """Rows of the given kinds or of all, the latest first; for those who stop at the first that they look for."""
        where = f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        sql = f"SELECT seq, kind, version, time, body FROM ledger WHERE seq < ?{where} ORDER BY seq DESC LIMIT ?"
        before, wanted = (1 << 63) - 1, _FIRST_BACK
        while page := self.database.query(sql, (before, *kinds, wanted)):
            yield from (_row(*values) for values in page)
            before, wanted = page[-1][0], min(wanted * 4, _PAGE)

    def last(self, kind: str) -> Row | None:
        """The latest row of a kind."""
        sql = "SELECT seq, kind, version, time, body FROM ledger WHERE kind = ? ORDER BY seq DESC LIMIT 1"
        return next((_row(*values) for values in self.database.query(sql, (kind,))), None)

    def size(self) -> int:
        """How many rows there are."""
        return int(self.database.query("SELECT count(*) FROM ledger")[0][0])

    def bytes_of(self, seq: int) -> bytes:
        """The canonical bytes of a row; ``UserError`` when there is none."""
        rows = self.database.query("SELECT seq, kind, version, time, body FROM ledger WHERE seq = ?", (seq,))
        if not rows:
            raise UserError(f"the ledger has no row {seq}; it has {self.size():,}")
        return canonical_row(*rows[0])

    # -- proving

    def head(self) -> Head:
        """The latest signed head; ``Corrupt`` when there is none with this project's signature."""
        rows = self.database.query("SELECT size, root, signature FROM ledger_head WHERE id = 1")
        if not rows or not Head(*rows[0]).valid(self._keys):
            raise Corrupt("the ledger has no valid signed head; run treadle verify")
        return Head(*rows[0])

    def inclusion(self, seq: int, head: Head) -> list[bytes]:
        """The path from row ``seq`` to the root of ``head``; ``Corrupt`` when the rows do not lead there."""
        leaf = leaf_hash(self.bytes_of(seq))
        path = proof.inclusion(seq - 1, head.size, nodes.reader(self.database))
        if not proof.included(leaf, seq - 1, head.size, path, bytes.fromhex(head.root)):
            raise Corrupt(f"row {seq} does not lead to the signed head over {head.size} rows; run treadle verify")
        return path

    def consistency(self, earlier: Head, later: Head) -> list[bytes]:
        """What shows that ``later`` only added to ``earlier``; ``Corrupt`` when it did not."""
        told = f"the head over {earlier.size} rows is not of this history; run treadle verify"
        if earlier.size > later.size:
            raise Corrupt(told)
        if earlier.size == 0:
            return []
        path = proof.consistency(earlier.size, later.size, nodes.reader(self.database))
        roots = bytes.fromhex(earlier.root), bytes.fromhex(later.root)
        if not proof.consistent(earlier.size, later.size, *roots, path):
            raise Corrupt(told)
        return path

    # -- verifying

    def audit(self, published: Sequence[Published] = ()) -> Audit:
        """Every row against its code, the tree against all signed heads, every projection against the rows.

        ``published`` are heads that were kept elsewhere.
        """
        return audit(self.database, self._keys, self._file, self._projections, published)

    def verify(self) -> list[Problem]:
        """What the audit found."""
        return self.audit().problems


def _row(seq: int, kind: str, version: int, time: str, body: str) -> Row:
    try:
        parsed = json.loads(body)
    except (ValueError, TypeError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise Corrupt(f"row {seq} of the ledger cannot be read; run treadle verify")
    return Row(seq, kind, version, time, parsed)
