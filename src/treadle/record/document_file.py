"""The file of the index of documents: a cache beside the store, drawn from artifacts' lists of documents.

Lists are numbered in the order they were recorded. What each gained and lost against its base lies in segments, each
over the lists of a span, sorted by document; a new segment takes in those before it that are less than four times its
size, so there are few and each record is seldom written again. What is in the file carries codes under the project's
key, so that an erasure, which may miss nothing, can tell that it is all there and was not changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from treadle.core.database import Database
from treadle.core.errors import Corrupt
from treadle.core.keys import Keys
from treadle.record.cache_file import CacheFile
from treadle.record.document_records import PREFIX, found, merged, packed, unpacked

FORMAT = 1
_GROWTH = 4  # a segment this many times as large as what comes after it stays as it is
_CODED = "index of documents"

# progress: a name for this file; the latest row about an artifact that was taken in, about an erasure that was heeded.
# unread: artifacts whose list was damaged when it was looked at.
_SCHEMA = """
CREATE TABLE progress (
    id INTEGER PRIMARY KEY CHECK (id = 1), made BLOB NOT NULL, seen INTEGER NOT NULL, digest TEXT NOT NULL,
    erased INTEGER NOT NULL);
INSERT INTO progress VALUES (1, randomblob(16), 0, '', 0);
CREATE TABLE lists (
    number INTEGER PRIMARY KEY, object TEXT NOT NULL UNIQUE, base INTEGER NOT NULL, code TEXT NOT NULL);
CREATE TABLE holdings (
    digest TEXT NOT NULL, kind TEXT NOT NULL, list INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (digest, kind));
CREATE INDEX holdings_list ON holdings (list, kind);
CREATE INDEX holdings_kind ON holdings (kind, seq);
CREATE TABLE unread (digest TEXT NOT NULL, kind TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (digest, kind));
CREATE TABLE segments (
    id INTEGER PRIMARY KEY, records INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    code TEXT NOT NULL);
CREATE TABLE blocks (id INTEGER PRIMARY KEY, segment INTEGER NOT NULL, first BLOB NOT NULL, data BLOB NOT NULL);
CREATE INDEX blocks_first ON blocks (segment, first);
"""
_INSERT_SEGMENT = "INSERT INTO segments (records, first, last, code) VALUES (?, ?, ?, ?)"
_INSERT_BLOCK = "INSERT INTO blocks (segment, first, data) VALUES (?, ?, ?)"
_BLOCKS = "SELECT data FROM blocks WHERE segment = ? ORDER BY first, id"
_NEAR = (  # one statement, so that it sees one moment, whoever merges segments meanwhile
    "SELECT b.data FROM segments s CROSS JOIN blocks b ON b.segment = s.id WHERE b.first <= ?2 AND b.first >= "
    "coalesce((SELECT max(first) FROM blocks WHERE segment = s.id AND first <= ?1), x'')"
)


def document_file(path: Path) -> CacheFile:
    """The file at a path, not opened yet."""
    return CacheFile(path, _SCHEMA, FORMAT)


@dataclass(frozen=True, slots=True)
class NewSegment:
    """Records about the lists from ``first`` to ``last``, from sources each of which is sorted."""

    first: int
    last: int
    count: int
    sources: Sequence[Iterator[bytes]]


def add_segment(cursor: sqlite3.Cursor, new: NewSegment, keys: Keys) -> None:
    """Write a segment, with those before it that are not much larger."""
    first, count, sources, taken = new.first, new.count, [*new.sources], []
    rows = cursor.execute("SELECT id, records, first FROM segments ORDER BY last DESC").fetchall()
    for segment, held, start in rows:
        if held >= _GROWTH * count:
            break
        taken.append((segment,))
        sources.append(_blocks(cursor, segment))
        first, count = start, count + held
    segment = cursor.execute(_INSERT_SEGMENT, (count, first, new.last, "")).lastrowid
    hasher = blake3()
    for start, data in packed(merged(sources, count)):
        hasher.update(data)
        cursor.execute(_INSERT_BLOCK, (segment, start, data))
    code = _segment_code(keys, count, first, new.last, hasher.hexdigest())
    cursor.execute("UPDATE segments SET code = ? WHERE id = ?", (code, segment))
    for table, column in (("blocks", "segment"), ("segments", "id")):
        cursor.executemany(f"DELETE FROM {table} WHERE {column} = ?", taken)


def _blocks(cursor: sqlite3.Cursor, segment: int) -> Iterator[bytes]:
    for (data,) in cursor.connection.execute(_BLOCKS, (segment,)):
        yield unpacked(data)


def changes(database: Database, document: str) -> tuple[set[int], set[int]]:
    """Numbers of the lists that gained a document, and of those that lost it; or of one with the same first bytes."""
    prefix = bytes.fromhex(document.removeprefix("doc:"))[:PREFIX]
    gained: set[int] = set()
    lost: set[int] = set()
    for (data,) in database.query(_NEAR, (prefix + bytes(4), prefix + b"\xff" * 4)):
        more, less = found(unpacked(data), prefix)
        gained.update(more)
        lost.update(less)
    return gained, lost


def list_code(keys: Keys, number: int, name: str, base: int) -> str:
    """What shows that a list stands in the file as it was put there."""
    return keys.keyed(_CODED, f"list {number} {name} {base}")


def _segment_code(keys: Keys, count: int, first: int, last: int, digest: str) -> str:
    return keys.keyed(_CODED, f"segment {count} {first} {last} {digest}")


def check(database: Database, keys: Keys) -> None:
    """``Corrupt`` unless every list and every record is there, as it was written."""
    last = 0
    for number, name, base, code in database.query("SELECT number, object, base, code FROM lists ORDER BY number"):
        if number != last + 1 or code != list_code(keys, number, name, base):
            raise Corrupt(f"{database.place}: list {last + 1} is not what was written")
        last = number
    end = 0
    for segment, count, first, until, code in database.query("SELECT * FROM segments ORDER BY first"):
        digest = _hashed(data for (data,) in database.query(_BLOCKS, (segment,)))
        if first != end + 1 or code != _segment_code(keys, count, first, until, digest):
            raise Corrupt(f"{database.place}: what is said of list {end + 1} and on is not what was written")
        end = until
    if end != last:
        raise Corrupt(f"{database.place}: nothing is said of list {end + 1} and on")


def _hashed(blocks: Iterable[bytes]) -> str:
    hasher = blake3()
    for data in blocks:
        hasher.update(data)
    return hasher.hexdigest()
