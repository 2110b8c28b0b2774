"""A search for runs: SQL over the tables ``runs`` and ``run_values``, the same for every database.

What stands in neither (``inputs.``, ``outputs.``, and the facts ``name``, ``kind``, ``seed``, ``commit``) is looked at
in the runs that the rest of the filter leaves, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from treadle.core.errors import UserError, nearest
from treadle.core.runs import RunRecord, Runs
from treadle.core.texts import keyed_text
from treadle.record.run_filter import GROUPS, Both, Field, Filter, Not, Test, Value, fields_of
from treadle.record.run_match import FACTS, Keyed, forms, lowered, matches, names_of, value_of

_TABLED = ("params", "metrics", "tags")  # what stands in ``run_values``
_NUMBERS = ("seconds",)  # columns that are numbers; the others are texts
_OBJECTS = ("parameters", "metrics", "inputs", "outputs", "facts")
_COLUMNS = ("id", "step", "key", "status", "started", "seconds", *_OBJECTS, "seq")
_HELD = {"params": "parameters", "metrics": "metrics", "inputs": "inputs", "outputs": "outputs"}
_SEARCHED = ("parameters", "id", "step")
_AT_ONCE = 500  # runs asked for in one query
_SOME_NAMES = 200  # among so many a name that was meant is looked for

Placed = tuple[int, RunRecord]


@dataclass(frozen=True, slots=True)
class Search:
    """Which runs, in which order, and how many; without ``sort`` the latest first.

    ``step`` with a point at its end is a whole stage; ``text`` is looked for in settings, ids and steps.
    """

    where: Filter | None = None
    step: str | None = None
    status: str | None = None
    sort: Field | None = None
    descending: bool = False
    limit: int | None = None
    offset: int = 0
    text: str = ""


def search(runs: Runs, wanted: Search) -> list[RunRecord]:
    """The runs that match; ``UserError`` where nothing does because no run has such a field."""
    keyed: Keyed = lambda text: keyed_text(runs.keys, text)  # noqa: E731
    found = _quick(runs, wanted, keyed) if _is_quick(wanted) else _slow(runs, wanted, keyed)[0]
    _explain(runs, wanted, found)
    return found


def listed(runs: Runs, wanted: Search) -> tuple[list[RunRecord], int]:
    """The runs that match, and how many there are without a limit."""
    if not _is_quick(wanted):
        found, total = _slow(runs, wanted, lambda text: keyed_text(runs.keys, text))
        _explain(runs, wanted, found)
        return found, total
    found = search(runs, wanted)
    compiled = _Compiler(lambda text: keyed_text(runs.keys, text), replace(wanted, sort=None))
    return found, int(runs.ledger.database.query(f"SELECT count(*){compiled.whole()}", compiled.values)[0][0])


def _explain(runs: Runs, wanted: Search, found: list[RunRecord]) -> None:
    """``UserError`` where the search names what no run has."""
    if not found and not wanted.offset:
        _refuse_unknown(runs, "--where", list(fields_of(wanted.where)) if wanted.where else [])
    elif found and wanted.sort is not None and value_of(found[0], wanted.sort) == (None, None):
        _refuse_unknown(runs, "--sort", [wanted.sort])  # runs that have it come first


def _is_quick(wanted: Search) -> bool:
    """Whether the tables can tell everything."""
    fields = [*(fields_of(wanted.where) if wanted.where else ()), *([wanted.sort] if wanted.sort else ())]
    return all(map(_in_tables, fields))


def _in_tables(of: Field) -> bool:
    return of.group in _TABLED or (not of.group and of.name not in FACTS)


def _quick(runs: Runs, wanted: Search, keyed: Keyed) -> list[RunRecord]:
    compiled, database = _Compiler(keyed, wanted), runs.ledger.database
    limit = [] if wanted.limit is None else [wanted.limit, wanted.offset]
    what = "r.*" if wanted.sort is None else compiled.place
    sql = f"SELECT {what}{compiled.whole()} ORDER BY {compiled.order()}{' LIMIT ? OFFSET ?' if limit else ''}"
    rows = database.query(sql, [*compiled.values, *limit])
    if wanted.sort is None:
        return RunRecord.many(rows)
    return _fetched(runs, [row[0] for row in rows])  # whole runs are too wide to be sorted


def _fetched(runs: Runs, places: Sequence[int]) -> list[RunRecord]:
    found: dict[int, RunRecord] = {}
    for start in range(0, len(places), _AT_ONCE):
        part = places[start : start + _AT_ONCE]
        rows = runs.ledger.database.query(f"SELECT * FROM runs WHERE seq IN ({', '.join('?' * len(part))})", part)
        found.update(zip([row[-1] for row in rows], RunRecord.many(rows), strict=True))
    return [found[place] for place in places]


def _slow(runs: Runs, wanted: Search, keyed: Keyed) -> tuple[list[RunRecord], int]:
    """Ask the tables for what they can tell, and look at each run for the rest; also how many there are in all."""
    parts = wanted.where.parts if isinstance(wanted.where, Both) and wanted.where.word == "and" else (wanted.where,)
    quick = tuple(part for part in parts if part and all(map(_in_tables, fields_of(part))))
    compiled = _Compiler(keyed, replace(wanted, where=Both("and", quick) if quick else None, sort=None))
    rest = [part for part in parts if part and part not in quick]
    looked_at = [of for part in rest for of in fields_of(part)] + ([wanted.sort] if wanted.sort else [])
    held = {_HELD.get(of.group, "facts") for of in looked_at}
    columns = ", ".join([f"r.{name}" if name not in _OBJECTS or name in held else "'{}'" for name in _COLUMNS])
    rows = runs.ledger.database.query(f"SELECT {columns}{compiled.whole()} ORDER BY r.seq DESC", compiled.values)
    found = [
        (row[-1], run)
        for row, run in zip(rows, RunRecord.many(rows), strict=True)
        if all(matches(run, part, keyed) for part in rest)
    ]
    if wanted.sort is not None:
        found = _sorted(found, wanted.sort, descending=wanted.descending)
    elif wanted.descending:
        found.reverse()
    end = None if wanted.limit is None else wanted.offset + wanted.limit
    return _fetched(runs, [place for place, _ in found[wanted.offset : end]]), len(found)


def _sorted(found: list[Placed], by: Field, *, descending: bool) -> list[Placed]:
    """Numbers before texts, and last those that have neither; among equals the latest first, as they come."""
    numbers, texts, rest = [], [], []
    for each in found:
        number, text = value_of(each[1], by)
        if number is not None:
            numbers.append((number, each))
        elif text is not None:
            texts.append((text.encode(), each))
        else:
            rest.append(each)
    numbers.sort(key=lambda pair: pair[0], reverse=descending)
    texts.sort(key=lambda pair: pair[0], reverse=descending)
    return [*(each for _, each in numbers), *(each for _, each in texts), *rest]


class _Compiler:
    """Turns a search into SQL, and gathers the values in the order of their places.

    Runs are ``runs r``, and what they are sorted by is ``run_values s``: alone, where the filter asks for it anyway and
    for no column.
    """

    def __init__(self, keyed: Keyed, wanted: Search) -> None:
        self.values: list[Any] = []
        self._keyed = keyed
        self._wanted = wanted
        self._by = wanted.sort if wanted.sort is not None and wanted.sort.group else None
        asked = () if wanted.where is None else tuple(fields_of(wanted.where))
        alone = self._by is not None and _demands(wanted.where, self._by) and all(each.group for each in asked)
        alone = alone and wanted.step is wanted.status is None and not wanted.text
        self.place = "s.run" if alone else "r.seq"
        # The sign keeps SQLite from looking each run up that one list names, before it asks the others.
        self._listed = f"+{self.place}" if alone else self.place

    def whole(self) -> str:
        """From where, and under which conditions."""
        wanted, parts = self._wanted, []
        if self.place == "s.run":
            tables = "run_values s"
            parts.append(f"s.name = {self._place(str(self._by))}")
        else:
            tables = "runs r"
            if self._by is not None:
                tables += f" LEFT JOIN run_values s ON s.name = {self._place(str(self._by))} AND s.run = r.seq"
        if wanted.step is not None and wanted.step.endswith("."):
            parts.append(f"r.step >= {self._place(wanted.step)} AND r.step < {self._place(wanted.step[:-1] + '/')}")
        elif wanted.step is not None:
            parts.append(f"r.step = {self._place(wanted.step)}")
        if wanted.status is not None:
            parts.append(f"r.status = {self._place(wanted.status)}")
        if wanted.text:
            like = [f"lower(r.{each}) LIKE {self._place(_pattern(wanted.text))} ESCAPE '!'" for each in _SEARCHED]
            parts.append(f"({' OR '.join(like)})")
        if wanted.where is not None:
            parts.append(self._filter(wanted.where))
        return f" FROM {tables}{' WHERE ' + ' AND '.join(parts) if parts else ''}"

    def order(self) -> str:
        """Runs without the field come last, and among equals the latest first."""
        by, turned = self._wanted.sort, " DESC" if self._wanted.descending else ""
        if by is None:
            return "r.seq" if turned else "r.seq DESC"
        if not by.group:
            return f"r.{by.name} IS NULL, r.{by.name}{turned}, r.seq DESC"
        if by.group == "metrics":
            return f"s.number IS NULL, s.number{turned}, {self.place} DESC"
        missing = "s.number IS NULL AND s.text IS NULL, s.number IS NULL"
        return f"{missing}, s.number{turned}, s.text{turned}, {self.place} DESC"

    def _filter(self, filter_: Filter) -> str:
        if isinstance(filter_, Not):
            return f"NOT {self._filter(filter_.inner)}"
        if isinstance(filter_, Both):
            cheapest_first = sorted(filter_.parts, key=self._effort)
            return "(" + f" {filter_.word.upper()} ".join([self._filter(part) for part in cheapest_first]) + ")"
        if filter_.operator != "in":
            return self._test(filter_.field, filter_.operator, filter_.values[0])
        return "(" + " OR ".join([self._test(filter_.field, "=", value) for value in filter_.values]) + ")"

    def _effort(self, filter_: Filter) -> int:
        """What stands in the row itself is told at once; of the rest, few runs have one text, and many a number."""
        if not isinstance(filter_, Test):
            return 3
        if not filter_.field.group or str(filter_.field) == str(self._by):
            return 0
        return 1 if filter_.operator in ("=", "in") else 2

    def _test(self, of: Field, sign: str, value: Value) -> str:
        """True or false, and never NULL."""
        number, text, held = "number", "text", "coalesce({}, false)"
        if not of.group:
            number, text = (f"r.{of.name}", "") if of.name in _NUMBERS else ("", f"r.{of.name}")
        elif str(of) == str(self._by):
            number, text = "s.number", "s.text"
        else:
            held = f"{self._listed} IN (SELECT run FROM run_values WHERE name = {self._place(str(of))} AND {{}})"
        if value is None:
            present = " OR ".join([f"{column} IS NOT NULL" for column in (number, text) if column])
            return ("NOT " if sign == "=" else "") + held.format(f"({present})")
        return held.format(f"({self._compare(of, sign, value, number, text)})")

    def _compare(self, of: Field, sign: str, value: Value, number: str, text: str) -> str:
        """A comparison of the column that has this kind of value; one of the other kind is only unequal."""
        if isinstance(value, str):
            column, other = text, number
        else:
            column, other = number, text
        if not column:
            return f"{other} IS NOT NULL" if sign == "!=" else "1 = 0"
        if not isinstance(value, str):
            compared = f"{column} {sign.replace('!=', '<>')} {self._place(float(value or 0))}"
        elif sign == "~":
            compared = f"lower({column}) LIKE {self._place(_pattern(value))} ESCAPE '!'"
        elif sign in ("=", "!="):
            either = ", ".join([self._place(form) for form in forms(of, value, self._keyed)])
            compared = f"{column} {'NOT ' if sign == '!=' else ''}IN ({either})"
        else:
            compared = f"{column} {sign} {self._place(value)}"
        return f"{compared} OR {other} IS NOT NULL" if sign == "!=" and other else compared

    def _place(self, value: Any) -> str:
        self.values.append(value)
        return "?"


def _demands(filter_: Filter | None, of: Field) -> bool:
    """Whether only a run that has the field can match."""
    if isinstance(filter_, Test):
        return str(filter_.field) == str(of) and None not in filter_.values
    if isinstance(filter_, Both):
        return (any if filter_.word == "and" else all)(_demands(part, of) for part in filter_.parts)
    return False


def _pattern(value: str) -> str:
    text = lowered(value).replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%{text}%"


def _refuse_unknown(runs: Runs, option: str, fields: list[Field]) -> None:
    """Name the first field that no run has, and the nearest that one has."""
    for each in fields:
        if each.group not in GROUPS:
            continue
        known = _names(runs, each.group)
        if str(each) not in known:
            close = nearest(str(each), sorted(known)) if len(known) <= _SOME_NAMES else ""
            raise UserError(f"{option}, column {each.column}: no run has {each};{close}".rstrip(";"))


def _names(runs: Runs, group: str) -> set[str]:
    """All names of a group, each with the group's before it."""
    database = runs.ledger.database
    if group in _TABLED:
        sql = "SELECT DISTINCT name FROM run_values WHERE name >= ? AND name < ?"
        return {str(row[0]) for row in database.query(sql, (f"{group}.", f"{group}/"))}
    found = database.query(f"SELECT DISTINCT {group} FROM runs")
    records = (RunRecord("", "", "", "", "", None, ("", "", row[0], row[0], "")) for row in found)
    return {name for record in records for name in names_of(record, group)}
