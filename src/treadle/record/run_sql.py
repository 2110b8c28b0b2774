"""A search for runs as SQL over the table ``runs``, with SQLite's functions for JSON."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import Any

from treadle.core.errors import UserError, nearest
from treadle.core.runs import RUNS, RunRecord, Runs
from treadle.core.sqlite import SqliteDatabase
from treadle.core.texts import is_word, keyed_text
from treadle.record.run_filter import GROUPS, Field, Filter, Not, Test, Value, fields_of

_HOLDS = {"params": "parameters", "metrics": "metrics", "inputs": "inputs", "outputs": "outputs", "tags": "facts"}
_FACTS = ("name", "kind", "seed", "commit")
_TEXTS = ("params", "tags")  # what may stand in the ledger as a keyed digest


def _member(column: str, *path: str) -> tuple[str, list[Any]]:
    """SQL for a member of an object that is kept as JSON, and its parameters; NULL where there is none."""
    return f"json_extract({column}, ?)", [_path(path)]


def _is_text(value: str) -> str:
    """SQL that is true where a member is text. A number sorts before every text, and true is 1."""
    return f"typeof({value}) = 'text'"


def _names(column: str, *path: str) -> tuple[str, list[Any]]:
    """A query for the names of all members of an object, over all runs."""
    return f"SELECT DISTINCT j.key FROM runs, json_each(runs.{column}, ?) AS j", [_path(path)]


def _query(runs: Runs, sql: str, values: list[Any]) -> list[tuple[Any, ...]]:
    """Ask the table. One that lies on a server is copied into memory first: its JSON and its types have other rules."""
    database = runs.ledger.database
    if isinstance(database, SqliteDatabase):
        return database.query(sql, values)
    with closing(sqlite3.connect(":memory:")) as copied:
        copied.executescript(RUNS.ddl)
        rows = database.query("SELECT * FROM runs")
        if rows:
            copied.executemany(f"INSERT INTO runs VALUES ({', '.join('?' * len(rows[0]))})", rows)
        return copied.execute(sql, values).fetchall()


def _path(path: tuple[str, ...]) -> str:
    return "$" + "".join(f'."{part}"' for part in path)


@dataclass(frozen=True, slots=True)
class Search:
    """Which runs, in which order, and how many; without ``sort`` the latest first."""

    where: Filter | None = None
    step: str | None = None
    status: str | None = None
    sort: Field | None = None
    descending: bool = False
    limit: int | None = None


def search(runs: Runs, wanted: Search) -> list[RunRecord]:
    """The runs that match; ``UserError`` where nothing does because no run has such a field."""
    compiled = _Compiler(lambda text: keyed_text(runs.keys, text))
    given = [(name, value) for name, value in (("step", wanted.step), ("status", wanted.status)) if value is not None]
    parts = [f"{name} = ?" for name, _ in given]
    compiled.values += [value for _, value in given]
    if wanted.where is not None:
        parts.append(compiled.filter(wanted.where))
    order = compiled.order(wanted.sort, descending=wanted.descending)
    sql = f"SELECT * FROM runs{' WHERE ' + ' AND '.join(parts) if parts else ''} ORDER BY {order}"
    if wanted.limit is not None:
        sql += " LIMIT ?"
        compiled.values.append(wanted.limit)
    found = [RunRecord.of(row) for row in _query(runs, sql, compiled.values)]
    if not found and wanted.where is not None:
        _refuse_unknown(runs, "--where", list(fields_of(wanted.where)))
    if found and wanted.sort is not None and not _has(found[0], wanted.sort):  # runs that have it come first
        _refuse_unknown(runs, "--sort", [wanted.sort])
    return found


@dataclass
class _Compiler:
    """Turns a filter into SQL, and gathers the values in the order of their places."""

    keyed: Callable[[str], str]
    values: list[Any] = field(default_factory=list)

    def filter(self, filter_: Filter) -> str:
        """A condition."""
        if isinstance(filter_, Test):
            return f"({self._test(filter_)})"
        if isinstance(filter_, Not):  # what a run does not have is neither true nor false in SQL, and false here
            return f"NOT coalesce({self.filter(filter_.inner)}, false)"
        cheapest_first = sorted(filter_.parts, key=_effort)
        return "(" + f" {filter_.word.upper()} ".join([self.filter(part) for part in cheapest_first]) + ")"

    def order(self, by: Field | None, *, descending: bool) -> str:
        """Runs without the field come last."""
        if by is None:
            return "seq ASC" if descending else "seq DESC"
        return f"{self._field(by)} IS NULL, {self._field(by)} {'DESC' if descending else 'ASC'}, seq DESC"

    def _field(self, of: Field) -> str:
        if not of.group and of.name not in _FACTS:
            return of.name
        path = (of.name,) if of.group != "tags" else ("tags", of.name)
        sql, values = _member(_HOLDS.get(of.group, "facts"), *path)
        self.values += values
        if of.group == "params" and "." in of.name:  # a setting inside another
            inner, more = _member("parameters", *of.name.split("."))
            self.values += more
            return f"coalesce({sql}, {inner})"
        return sql

    def _test(self, test: Test) -> str:
        if test.operator == "in":
            return " OR ".join([self._compare(test.field, "=", value) for value in test.values])
        return self._compare(test.field, test.operator, test.values[0])

    def _compare(self, of: Field, operator: str, value: Value) -> str:
        if isinstance(value, str) and operator == "=" and (of.group or of.name in _FACTS):
            return self._equal(of, value)
        left = self._field(of)
        if value is None:
            return f"{left} IS {'NOT ' if operator == '!=' else ''}NULL"
        if operator == "~":
            like = f"{left} LIKE {self._place(_pattern(value))} ESCAPE '!'"
            return f"{like} AND {_is_text(self._field(of))}"
        if isinstance(value, str) and operator == "!=" and of.group in _TEXTS:
            either = ", ".join([self._place(form) for form in self._forms(of, value)])
            return f"{left} NOT IN ({either})"
        sql = f"{left} {operator.replace('!=', '<>')} {self._place(value)}"
        # Without these any text would count as greater than every number.
        if isinstance(value, str):
            return f"{sql} AND {_is_text(self._field(of))}" if operator[0] == "<" else sql
        return f"{sql} AND NOT {_is_text(self._field(of))}" if operator[0] == ">" else sql

    def _equal(self, of: Field, text: str) -> str:
        """Most rows do not have the text anywhere, which is seen much sooner than what a member is."""
        texts = self._forms(of, text)
        column = _HOLDS.get(of.group, "facts")
        parts = []
        for each in texts:
            self.values.append(encode_basestring(each))
            parts.append(f"instr({column}, ?) > 0")
        member = self._field(of)
        return f"({' OR '.join(parts)}) AND {member} IN ({', '.join([self._place(each) for each in texts])})"

    def _forms(self, of: Field, text: str) -> tuple[str, ...]:
        """How a text may stand in the ledger: settings of steps as they are, other texts as keyed digests."""
        if of.group == "tags":
            return (self.keyed(text),)
        return (text, self.keyed(text)) if of.group == "params" and not is_word(text) else (text,)

    def _place(self, value: Any) -> str:
        self.values.append(value)
        return "?"


def _effort(filter_: Filter) -> int:
    """How much has to be read: columns are there; equal texts are seen quickly; tags stand among all the facts."""
    if isinstance(filter_, Test):
        of, values = filter_.field, filter_.values
        if not of.group and of.name not in _FACTS:
            return 0
        if filter_.operator in ("=", "in") and all(isinstance(value, str) for value in values):
            return 1
        return 3 if of.group in ("", "tags") else 2
    return max(map(_effort, (filter_.inner,) if isinstance(filter_, Not) else filter_.parts))


def _pattern(value: Value) -> str:
    text = str(value).replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%{text}%"


def _has(record: RunRecord, of: Field) -> bool:
    held: dict[str, Any] = {
        "params": record.parameters,
        "metrics": record.metrics,
        "inputs": record.inputs,
        "outputs": record.outputs,
        "tags": record.facts.get("tags", {}),
    }.get(of.group, {of.name: None})
    return of.name in held or (of.group == "params" and of.name.partition(".")[0] in held)


def _refuse_unknown(runs: Runs, option: str, fields: list[Field]) -> None:
    """Name the first field that no run has, and the nearest that one has."""
    for each in fields:
        if each.group not in GROUPS:
            continue
        sql, values = _names(_HOLDS[each.group], *(("tags",) if each.group == "tags" else ()))
        known = [str(row[0]) for row in _query(runs, sql, values)]
        if each.name not in known and each.name.partition(".")[0] not in known:
            close = nearest(str(each), [f"{each.group}.{name}" for name in known]) if len(known) <= 200 else ""
            raise UserError(f"{option}, column {each.column}: no run has {each};{close}".rstrip(";"))
