"""What runs are mostly searched by, as a query table: each setting, metric and tag of each run under its name.

A row holds what one run has as ``params.lr``, as a number or as a text; both are NULL for a value that is null. Rows of
one name lie together, so that a search reads the few names it is about and no JSON. A setting inside another has both
names (``params.net.layers``); a list is its canonical JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from treadle.core.database import Cursor
from treadle.core.digest import canonical_json, parsed
from treadle.core.fact import Projection, Row

NAME_LENGTH = 250  # characters; a longer name cannot be searched by, since PostgreSQL's indexes take 2,700 bytes

_PAGE = 2_000  # rows of the ledger read at a time

DDL = """
CREATE TABLE IF NOT EXISTS run_values (
    name TEXT NOT NULL, run INTEGER NOT NULL, number REAL, text TEXT, PRIMARY KEY (name, run)) WITHOUT ROWID;
"""
_SET = (
    "INSERT INTO run_values VALUES (?, ?, ?, ?) "
    "ON CONFLICT (name, run) DO UPDATE SET number = excluded.number, text = excluded.text"
)
_RUN = "SELECT seq FROM runs WHERE id = ?"
_GROUPS: dict[str, tuple[tuple[str, str], ...]] = {
    "run.started": (("params", "parameters"), ("tags", "tags")),
    "run.noted": (("params", "parameters"), ("tags", "tags")),
    "run.resumed": (),
    "run.finished": (("metrics", "metrics"),),
}

Named = tuple[str, float | None, str | None]


def values(group: str, held: Mapping[Any, Any]) -> Iterator[Named]:
    """What stands in an object, by whole name, each as a number or a text.

    In the order of canonical JSON, so that of two with the same whole name one is always the last.
    """
    for name, value in sorted(held.items()) if len(held) > 1 else held.items():
        whole = f"{group}.{name if isinstance(name, str) else _as_json(name)}"
        if isinstance(value, dict) and value:
            yield from values(whole, value)
        elif len(whole) <= NAME_LENGTH:
            yield plain(whole), *columns(value)


def columns(value: Any) -> tuple[float | None, str | None]:
    """A value of JSON as number and text, one of which is None."""
    if type(value) is float:  # most are
        return value, None
    if isinstance(value, str):
        return None, plain(value)
    if isinstance(value, bool | int | float):
        try:
            return float(value), None
        except OverflowError:  # a whole number beyond every double
            return None, str(value)
    return None, None if value is None else plain(canonical_json(value).decode())


def plain(text: str) -> str:
    """A text as every database can hold it: without the zero character and halves of surrogate pairs."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def _as_json(name: Any) -> str:
    """A name that is no text (1, true), as JSON has it."""
    found: dict[str, Any] = json.loads(canonical_json({name: None}))
    return next(iter(found))


def _project(cursor: Cursor, row: Row) -> None:
    body = row.body
    if row.kind == "run.resumed":  # what it finishes with is told anew
        cursor.execute(f"DELETE FROM run_values WHERE name LIKE 'metrics.%' AND run = ({_RUN})", (body["run"],))
        return
    found = [each for group, held in _GROUPS[row.kind] for each in values(group, body.get(held) or {})]
    if not found:
        return
    place = row.seq
    if row.kind != "run.started":
        place = cursor.execute(_RUN, (body["run"],)).fetchone()[0]
    cursor.executemany(_SET, [(name, place, number, text) for name, number, text in found])


def _project_all(cursor: Cursor, rows: Sequence[Row]) -> None:
    """Rows that only add something, as nearly all do, are written together."""
    found: list[tuple[str, int, float | None, str | None]] = []
    places: dict[str, int] = {}
    for row in rows:
        run = row.body["run"]
        if row.kind == "run.resumed":
            cursor.executemany(_SET, found)
            found.clear()
            _project(cursor, row)
            continue
        if row.kind == "run.started":
            places[run] = row.seq
        for group, name in _GROUPS[row.kind]:
            held = row.body.get(name)
            if held:
                if run not in places:
                    places[run] = cursor.execute(_RUN, (run,)).fetchone()[0]
                place = places[run]
                found += [(whole, place, number, text) for whole, number, text in values(group, held)]
    cursor.executemany(_SET, found)


def make_anew(cursor: Cursor) -> None:
    """Fill the table from the ledger's rows, in the transaction of ``cursor``."""
    cursor.execute("DELETE FROM run_values")
    kinds, after = tuple(sorted(_GROUPS)), 0
    sql = (
        f"SELECT seq, kind, version, time, body FROM ledger WHERE kind IN ({', '.join('?' * len(kinds))}) AND seq > ? "
        f"ORDER BY seq LIMIT {_PAGE}"
    )
    while page := cursor.execute(sql, (*kinds, after)).fetchall():
        for seq, kind, version, time, body in page:
            _project(cursor, Row(seq, kind, version, time, parsed(body)))
        after = page[-1][0]


RUN_VALUES = Projection("run_values", DDL, frozenset(_GROUPS), _project, _project_all)  # after `runs`, which it asks
