"""The projections, drawn again from the ledger's rows and compared with the tables as they are stored.

Of a large ledger another process does that (`Beside`) while this one checks the rows. It sees a moment of its own, the
earlier one, and says over which rows it drew: they have to be those that were found genuine here. What it cannot vouch
for is drawn again in this process (`Redrawn`), which names what is wrong.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Protocol

from blake3 import blake3

from treadle.core.database import Reader
from treadle.core.digest import parsed
from treadle.core.errors import TreadleError
from treadle.core.fact import Projection, Row, canonical_rows

_NAMED = 1_000  # rows of a table that are named one by one
_BATCH = 1_000
_INDEXES = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
_COMMAND = "import sys; sys.path[:] = sys.argv[1:]; from treadle.core.redrawing import serve; serve()"

Stored = tuple[int, str, int, str, str, str]  # a row of the ledger: seq, kind, version, time, body, mac


class Doubtful(TreadleError):
    """Not all is as it should be; whoever wants to know what looks at it in this process."""


class Drawing(Protocol):
    """What the audit hands genuine rows to."""

    def add_all(self, rows: Iterable[Stored], data: Sequence[bytes | None] | None) -> Iterable[tuple[int, str]]:
        """Apply rows; ``data`` are their canonical bytes, None where some of a batch are not genuine. What cannot be
        applied, by number."""
        ...

    def compare(self, connection: Reader) -> Iterable[tuple[str, str]]:
        """What differs from the stored tables: which row, and how."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Redrawn:
    """Drawn in memory."""

    def __init__(self, projections: Sequence[Projection]) -> None:
        self._projections = projections
        self._wanted = _by_kind(projections)
        self._memory = sqlite3.connect(":memory:", isolation_level=None)
        self._memory.executescript("".join(projection.ddl for projection in projections))
        for (index,) in self._memory.execute(_INDEXES).fetchall():  # nobody looks anything up by them here
            self._memory.execute(f'DROP INDEX "{index}"')
        self._cursor = self._memory.cursor()
        self._cursor.execute("BEGIN")

    def add_all(self, rows: Iterable[Stored], data: Sequence[bytes | None] | None = None) -> list[tuple[int, str]]:
        """Apply rows."""
        wanted, decode, cursor = self._wanted, json.JSONDecoder().raw_decode, self._cursor
        failed = []
        for seq, kind, version, time, body, _ in rows:
            if kind in wanted:
                row = Row(seq, kind, version, time, decode(body)[0])
                try:
                    for apply in wanted[kind]:
                        apply(cursor, row)
                except (sqlite3.Error, KeyError, TypeError) as error:
                    failed.append((seq, f"row {seq} ({kind}) cannot be projected: {type(error).__name__} {error}"))
        return failed

    def add_together(self, rows: Iterable[Stored]) -> None:
        """Apply rows at less cost; what cannot be applied is an exception, and leaves nothing to compare."""
        read = [Row(seq, kind, version, time, parsed(body)) for seq, kind, version, time, body, _ in rows]
        for each in self._projections:
            each.apply_all(self._cursor, [row for row in read if row.kind in each.kinds])

    def compare(self, connection: Reader) -> Iterator[tuple[str, str]]:
        """Every table as stored against the same drawn again."""
        for projection in self._projections:
            sql = f"SELECT * FROM {projection.table}"
            drawn, stored = _differing(self._cursor.execute(sql), connection.execute(sql))
            for row in sorted(drawn ^ stored, key=repr)[:_NAMED]:
                state = "is missing or was changed" if row in drawn else "does not follow from the ledger"
                yield f"{projection.table}:{row[0][1]}", f"row {state}"

    def close(self) -> None:
        """Forget it."""
        self._memory.close()


def _by_kind(projections: Sequence[Projection]) -> dict[str, list[Any]]:
    kinds = frozenset[str]().union(*(projection.kinds for projection in projections))
    return {kind: [each.apply for each in projections if kind in each.kinds] for kind in kinds}


def _differing(drawn: Any, stored: Any) -> tuple[set[Any], set[Any]]:
    """The rows that only one of two tables may have. Values carry their types, so that 1, 1.0 and ``'1'`` differ."""
    here: set[Any] = set()
    there: set[Any] = set()
    while True:  # both were filled in the same order, so nearly all batches are equal
        ones, others = drawn.fetchmany(_BATCH), stored.fetchmany(_BATCH)
        if not ones and not others:
            return here - there, there - here
        if ones != others or _types(ones) != _types(others):
            here.update(map(_typed, ones))
            there.update(map(_typed, others))


def _types(rows: Iterable[tuple[Any, ...]]) -> list[type]:
    return [*map(type, chain.from_iterable(rows))]


def _typed(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((type(value).__name__, value) for value in row)


# -- in another process


class Beside:
    """Another process that draws from an SQLite file and compares. Its moment begins before this returns.

    ``Doubtful`` where it cannot be had.
    """

    def __init__(self, path: Path, projections: Sequence[Projection]) -> None:
        self._wanted = _by_kind(projections).keys()
        self._hasher = blake3()
        try:
            task = pickle.dumps((str(path), tuple(projections)))
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _COMMAND, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except (OSError, pickle.PicklingError, AttributeError, TypeError) as error:
            raise Doubtful(f"no process could be started: {error}") from None
        try:
            assert self._process.stdin is not None
            with self._process.stdin as pipe:
                pipe.write(task)
            self._rows = int(self._said())
        except (OSError, ValueError):
            self.close()
            raise Doubtful("another process could not read the ledger") from None

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline(1_000).decode("ascii", "replace").strip()

    def add_all(self, rows: Iterable[Stored], data: Sequence[bytes | None] | None) -> tuple[()]:
        """Note rows that were found genuine, as far as the other process sees them."""
        if data is None:
            raise Doubtful("there are rows that are not what was written")
        wanted, last = self._wanted, self._rows
        self._hasher.update(
            b"".join(
                [
                    length
                    for row, each in zip(rows, data, strict=True)
                    if row[1] in wanted and row[0] <= last and each is not None
                    for length in (b"%d:" % len(each), each)
                ]
            )
        )
        return ()

    def compare(self, connection: Reader) -> tuple[()]:
        """``Doubtful`` unless the other process drew from the same rows and found the tables to be as drawn."""
        if self._said() != f"same {self._hasher.hexdigest()}":
            raise Doubtful("what was drawn from the rows is not what is stored")
        return ()

    def close(self) -> None:
        """End the other process."""
        self._process.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()


def several_processors() -> bool:
    """Whether another process would find a processor of its own."""
    return len(os.sched_getaffinity(0)) > 1


def serve() -> None:
    """The other process: draw what standard input asks for, and say over which rows, and whether it is the same."""
    gc.disable()  # a million rows make no cycles
    path, projections = pickle.load(sys.stdin.buffer)  # noqa: S301 (from the process that started this one)
    connection = sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True, isolation_level=None)
    connection.execute("PRAGMA query_only=ON")
    connection.execute("BEGIN")
    ((last,),) = connection.execute("SELECT coalesce(max(seq), 0) FROM ledger").fetchall()
    _say(str(last))
    redrawn, hasher = Redrawn(projections), blake3()
    kinds = sorted(_by_kind(projections))
    # The sign keeps SQLite from going by kind, and sorting.
    where = f"+kind IN ({', '.join(repeat('?', len(kinds)))})"
    cursor = connection.execute(
        f"SELECT seq, kind, version, time, body, '' FROM ledger WHERE {where} ORDER BY seq", kinds
    )
    while rows := cursor.fetchmany(_BATCH):
        data = canonical_rows(rows)
        hasher.update(b"".join([part for each in data for part in (b"%d:" % len(each), each)]))
        redrawn.add_together(rows)
    same = not any(redrawn.compare(connection))
    _say(f"{'same' if same else 'other'} {hasher.hexdigest()}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
