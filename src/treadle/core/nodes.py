"""The ledger's tree in the database: roots of complete subtrees of 32 rows, of 32 such roots, and so on.

They make proofs quick: two blocks of 32 rows are read and hashed, the rest is looked up. They follow from the rows,
are written in the transaction that appends, and are compared with the rows by ``verify``. Where one is missing it is
computed from what is below it, down to the rows, so a ledger without any gives the same proofs, more slowly.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from treadle.core.database import Cursor, Database
from treadle.core.errors import Corrupt
from treadle.core.fact import canonical_row
from treadle.core.merkle import EMPTY_ROOT, Frontier, fold, folded, leaf_hash
from treadle.core.proof import Subtree

BITS = 5  # a node stands over 2**BITS rows, or nodes of the level below
WIDTH = 1 << BITS
_PAGE = 64 * WIDTH  # rows read at a time when all are made anew

SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger_nodes (
    level INTEGER NOT NULL, position INTEGER NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (level, position));
"""
_INSERT = "INSERT INTO ledger_nodes VALUES (?, ?, ?) ON CONFLICT (level, position) DO UPDATE SET hash = excluded.hash"
_ROWS = "SELECT seq, kind, version, time, body FROM ledger WHERE seq > ? AND seq <= ? ORDER BY seq"

_HASH = re.compile(r"[0-9a-f]{64}\Z")  # anything else counts as missing

Node = tuple[int, int, str]  # level from 1, position in it from 0, hash in hexadecimal


def completed(size: int, roots: Sequence[bytes], height: int = 0) -> list[Node]:
    """The nodes among the subtrees that end with row ``size``; ``roots`` are those from ``height`` on."""
    levels = range(max(1, -(-height // BITS)), (height + len(roots) - 1) // BITS + 1)
    return [(level, (size >> BITS * level) - 1, roots[BITS * level - height].hex()) for level in levels]


def store(cursor: Cursor, nodes: Sequence[Node]) -> None:
    """Write nodes, in the transaction that appends their rows."""
    for node in nodes:
        cursor.execute(_INSERT, node)


class Tree:
    """The tree over many leaves, grown a block at a time, with its roots at certain sizes."""

    def __init__(self, sizes: Collection[int] = ()) -> None:
        self.frontier = Frontier()
        self.roots = {0: EMPTY_ROOT.hex()}
        self.nodes: list[Node] = []
        self._stops = sorted(sizes, reverse=True)

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return self.frontier.size

    def extend(self, leaves: list[bytes]) -> None:
        """Add leaf hashes."""
        start = 0
        while start < len(leaves):
            count = self._whole(len(leaves) - start)
            if count:
                for root in folded(leaves[start : start + count], BITS):
                    roots = self.frontier.append_root(root, BITS)
                    self.nodes += completed(self.frontier.size, roots, BITS)
                    self._note()
            else:
                roots = self.frontier.append(leaves[start])
                self.nodes += completed(self.frontier.size, roots)
                self._note()
            start += count or 1

    def _whole(self, count: int) -> int:
        """How many of so many leaves fill whole blocks, as far as the next size at which the root is wanted."""
        size = self.frontier.size
        while self._stops and self._stops[-1] <= size:
            self._stops.pop()
        if self._stops:
            count = min(count, self._stops[-1] - size)
        return 0 if size % WIDTH else count - count % WIDTH

    def _note(self) -> None:
        size = self.frontier.size
        while self._stops and self._stops[-1] <= size:
            if self._stops.pop() == size:
                self.roots[size] = self.frontier.root().hex()


def make_anew(cursor: Cursor, size: int, frontier: str) -> bool:
    """Write all nodes from the rows; nothing, and False, where these are not the rows that ``frontier`` stands for."""
    tree, after = Tree(), 0
    while after < size:
        leaves = [leaf_hash(_bytes(*row)) for row in cursor.execute(_ROWS, (after, after + _PAGE)).fetchall()]
        if not leaves:
            return False
        tree.extend(leaves)
        after += _PAGE
    if tree.size != size or tree.frontier.encode() != frontier:
        return False
    store(cursor, tree.nodes)
    return True


def _bytes(seq: int, kind: str, version: int, time: str, body: str) -> bytes:
    try:
        return canonical_row(seq, kind, version, time, body)
    except (TypeError, AttributeError):
        raise Corrupt(f"row {seq} of the ledger cannot be read; run treadle verify") from None


def reader(database: Database) -> Subtree:
    """``subtree(height, index)`` over the rows and nodes there are; remembers what it has read.

    ``Corrupt`` where a row is missing.
    """
    blocks: dict[tuple[int, int], dict[int, bytes]] = {}

    def block(level: int, number: int) -> dict[int, bytes]:
        """Up to 32 neighbors of one level by position: hashes of rows at level 0."""
        found = blocks.get((level, number))
        if found is None:
            first = number << BITS
            if level:
                sql = "SELECT position, hash FROM ledger_nodes WHERE level = ? AND position >= ? AND position < ?"
                rows = database.query(sql, (level, first, first + WIDTH))
                found = {position: bytes.fromhex(text) for position, text in rows if _HASH.match(str(text))}
            else:
                rows = database.query(_ROWS, (first, first + WIDTH))
                found = {row[0] - 1: leaf_hash(_bytes(*row)) for row in rows}
            blocks[level, number] = found
        return found

    def node(level: int, position: int) -> bytes:
        held = block(level, position >> BITS).get(position)
        if held is not None:
            return held
        if not level:
            raise Corrupt(f"row {position + 1} of the ledger is missing; run treadle verify")
        made = fold([node(level - 1, (position << BITS) + place) for place in range(WIDTH)])
        block(level, position >> BITS)[position] = made
        blocks.pop((level - 1, position), None)  # so that a ledger without nodes is not kept in memory as a whole
        return made

    def subtree(height: int, index: int) -> bytes:
        level, rest = divmod(height, BITS)
        return fold([node(level, (index << rest) + place) for place in range(1 << rest)])

    return subtree
