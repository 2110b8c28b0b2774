"""The source ``sql``: the rows of a query, out of any database SQLAlchemy opens.

What a row was is told by its key, when it changed by a watermark: a column that never goes down when a row is added or
changed, such as ``updated_at``. With it, whether there is anything new costs one query that counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from blake3 import blake3

from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import UserError, nearest
from treadle.core.settings import Moment, Positive
from treadle.text.accounting import Quarantined
from treadle.text.document import Document, Origin
from treadle.text.row_mapping import Fields, RowMapping, UnusableRowError
from treadle.text.rows import BadRow, Limits
from treadle.text.source import SourceContext
from treadle.text.sql_database import SqlDatabase, SqlReading
from treadle.text.table_rows import table_row
from treadle.text.units import LOOSE, Known, Unit

SOURCE = "sql"
_MOST_BY_KEY = 2000  # rows asked for by their keys, not by reading all
_AT_ONCE = 500
_TYPES: dict[str, Any] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "decimal": Decimal,
    "uuid": UUID,
}


class Sql:
    """Source ``sql``.

    ``url`` names a database as SQLAlchemy does and holds no password; ``${env:NAME}`` in it is read from the
    environment. ``query`` gives the rows, ``key`` is the column that tells them apart, ``watermark`` one that never
    goes down when a row is added or changed. ``fields`` is that of ``files``. ``name`` stands in locators in place of
    the database's name. ``seconds`` is what reading may take.
    """

    version = 1

    def __init__(
        self,
        *,
        url: str,
        query: str,
        key: str,
        context: SourceContext,
        watermark: str | None = None,
        name: str | None = None,
        fields: Fields | None = None,
        license: str | None = None,  # noqa: A002 (the file's word)
        personal_data: bool = False,
        origin: Origin = "human",
        purpose: str | None = None,
        retain_until: Moment | None = None,
        seconds: float = 3600.0,
        max_row_bytes: Positive = 16_000_000,
        max_depth: Positive = 64,
    ) -> None:
        given = fields or Fields()
        if given.id is not None:
            raise UserError("sql: fields names an id; the key is the id")
        self._database = SqlDatabase(url, where=SOURCE, seconds=seconds, folder=context.project)
        self._query = query.strip().removesuffix(";")
        self._key, self._watermark, self._name = key, watermark, name
        self._mapping = RowMapping(given.model_copy(update={"id": key}), context.keyed, personal_data, SOURCE)
        self._common = {"license": license, "origin": origin, "purpose": purpose, "retain_until": retain_until}
        self._limits = Limits(max_row_bytes, max_depth)
        self.cursor: str | None = None  # where reading stands; what `read` goes on from

    def fingerprint(self) -> str:
        """How many rows there are and the highest watermark. Without one, a digest over all rows, each of them read.

        An update that leaves the watermark, and a row that goes while another comes below the highest, are not seen.
        """
        with self._database.reading() as reading:
            self._check_columns(reading)
            if self._watermark is None:
                return self._digest(reading)
            mark = reading.quoted(self._watermark)
            asked = f"SELECT count(*) AS n, count({mark}) AS marked, max({mark}) AS high FROM {self._rows()}"
            (told,) = reading.rows(asked)
        found = [told["n"], told["marked"], _tagged(told["high"])]
        return f"{told['n']} rows {blake3_bytes(canonical_json(found))}"

    def read(self, cursor: str | None = None) -> Iterator[Document | Quarantined]:
        """Every row in the order of watermark and key; with ``cursor``, those after it, and those without a watermark.

        A row that changed comes again after the cursor, since its watermark went up; one that was deleted says nothing,
        and one that appears late with a watermark below the cursor is missed: only a whole read sees those.
        """
        name = self._name or self._database.name()
        with self._database.reading() as reading:
            self._check_columns(reading)
            self._check_key(reading)
            for number, row in enumerate(reading.rows(*self._asked(reading, cursor)), start=1):
                self.cursor = self._place(row) or self.cursor
                yield self._piece(number, row, name)

    def read_changed(self, known: Known) -> Iterator[Document | Quarantined | Unit]:
        """The same by rows, where there is a watermark: keys and watermarks of all are asked for, and whole rows only
        where these are new. When many are, the whole query is read.
        """
        watermark = self._watermark
        if watermark is None:
            yield from self.read()
            return
        name = self._name or self._database.name()
        with self._database.reading() as reading:
            self._check_columns(reading)
            self._check_key(reading)
            new = self._new(reading, watermark, known, name)
            rows = self._listed(reading) if new is not None else reading.rows(*self._asked(reading, None))
            for number, row in enumerate(rows, start=1):
                mark = self._mark(row, name)
                found = row if new is None else new.get(row[self._key])
                if found is None and mark is not None:
                    yield Unit(*mark, known=True)
                    continue
                found = found or row
                piece = self._piece(number, found, name)
                # Without a watermark nothing tells that it changed, and what is quarantined names the row's number.
                loose = mark is None or isinstance(piece, Quarantined) or row[watermark] is None
                yield LOOSE if loose or mark is None else Unit(*mark)
                yield piece

    def _new(self, reading: SqlReading, watermark: str, known: Known, name: str) -> dict[Any, dict[str, Any]] | None:
        """The rows that are not known, by their keys; None when they are too many."""
        keys = []
        for row in self._listed(reading):
            mark = self._mark(row, name)
            if mark is None:
                return None
            if row[watermark] is None or not known(*mark):
                keys.append(row[self._key])
            if len(keys) > _MOST_BY_KEY:
                return None
        found, key = dict[Any, dict[str, Any]](), reading.quoted(self._key)
        for start in range(0, len(keys), _AT_ONCE):
            values = {f"treadle_{place}": value for place, value in enumerate(keys[start : start + _AT_ONCE])}
            wanted = ", ".join(f":{name}" for name in values)
            for row in reading.rows(f"SELECT * FROM {self._rows()} WHERE {key} IN ({wanted})", values):
                found[row[self._key]] = row
        return found if found.keys() == set(keys) else None

    def _listed(self, reading: SqlReading) -> Iterator[dict[str, Any]]:
        """Key and watermark of every row, in the order of reading."""
        mark, key = reading.quoted(str(self._watermark)), reading.quoted(self._key)
        columns = key if mark == key else f"{key}, {mark}"
        return reading.rows(f"SELECT {columns} FROM {self._rows()} ORDER BY {mark}, {key}")

    def _mark(self, row: Mapping[str, Any], name: str) -> tuple[str, str] | None:
        """Name and state of a row; None where they are no UTF-8."""
        place = self._place(row)
        return None if place is None else (f"{name}:{_tagged(row[self._key])}", place)

    def _place(self, row: Mapping[str, Any]) -> str | None:
        """What ``read`` goes on from after a row; None where that is no UTF-8, which cannot be asked for."""
        place = [row[self._watermark] if self._watermark else None, row[self._key]]
        with suppress(UnicodeEncodeError):
            "".join(value for value in place if isinstance(value, str)).encode()
            return canonical_json([_tagged(value) for value in place]).decode()
        return None

    def _piece(self, number: int, row: Mapping[str, Any], name: str) -> Document | Quarantined:
        made = table_row(number, row, self._limits)
        if isinstance(made, BadRow):
            return Quarantined(f"{SOURCE}:{name}", made.offset, made.reason)
        try:
            return self._mapping.document(made, SOURCE, name, self._common)
        except UnusableRowError as error:
            return Quarantined(f"{SOURCE}:{name}", made.offset, f"row {number}: {error}")

    def _rows(self) -> str:
        # What stands inside a FROM can only read, whatever the database. The line's end closes a comment.
        return f"({self._query}\n) treadle_rows"

    def _asked(self, reading: SqlReading, cursor: str | None) -> tuple[str, dict[str, Any]]:
        key = reading.quoted(self._key)
        mark = reading.quoted(self._watermark) if self._watermark else None
        where, values = "", {}
        if cursor is not None:
            high, last = (_untagged(value) for value in json.loads(cursor))
            values = {"treadle_last": last}
            if mark is None:
                where = f" WHERE {key} > :treadle_last"
            elif high is None:
                where, values = "", {}
            else:
                after = f"{mark} > :treadle_high OR ({mark} = :treadle_high AND {key} > :treadle_last)"
                where, values = f" WHERE {after} OR {mark} IS NULL", {"treadle_high": high, **values}
        order = f"{mark}, {key}" if mark else key
        return f"SELECT * FROM {self._rows()}{where} ORDER BY {order}", values

    def _check_columns(self, reading: SqlReading) -> None:
        """SQLite takes the name of a column that is not there for a text, and says nothing."""
        columns = reading.columns(self._query)
        for column in (self._key, self._watermark):
            if column is not None and column not in columns:
                raise UserError(f"sql: the query has no column {column!r};{nearest(column, columns)}")
        time = self._mapping.fields.time
        if time is not None and not {time, time.partition(".")[0]} & set(columns):
            raise UserError(f"sql: the query has no column {time!r} of fields.time;{nearest(time, columns)}")

    def _check_key(self, reading: SqlReading) -> None:
        key = reading.quoted(self._key)
        asked = f"SELECT count({key}) AS n, count(DISTINCT {key}) AS apart FROM {self._rows()}"
        (told,) = reading.rows(asked)
        if told["n"] != told["apart"]:
            raise UserError(
                f"sql: {self._key} is no key: {told['n']} rows have {told['apart']} values of it; name a column that"
                " tells rows apart"
            )

    def _digest(self, reading: SqlReading) -> str:
        hasher, count = blake3(), 0
        for row in reading.rows(f"SELECT * FROM {self._rows()} ORDER BY {reading.quoted(self._key)}"):
            made = table_row(count + 1, row, self._limits)
            hasher.update(made.reason.encode() if isinstance(made, BadRow) else made.raw)
            hasher.update(b"\n")
            count += 1
        return f"{count} rows b3:{hasher.hexdigest()}"


def _tagged(value: Any) -> Any:
    """A value as JSON that can be given back to the database as what it was."""
    kind = type(value).__name__.lower()
    if kind in _TYPES:
        return {kind: value.isoformat() if hasattr(value, "isoformat") else str(value)}
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _untagged(value: Any) -> Any:
    if isinstance(value, dict) and len(value) == 1:
        ((kind, text),) = value.items()
        return _TYPES[kind](text)
    return value
