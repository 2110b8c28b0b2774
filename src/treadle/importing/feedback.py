"""A table of feedback (CSV, JSON lines, or what an SQL query gives) becomes feedback on interactions."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from treadle.core.digest import canonical_json
from treadle.core.errors import UserError, nearest
from treadle.core.identifiers import id_at, time_of
from treadle.core.runs import Run
from treadle.importing.admission import FUTURE, Admission, iso
from treadle.importing.exchanges import moment_of
from treadle.importing.import_run import account, import_run
from treadle.importing.lines import read_lines
from treadle.importing.logs import ImportedRows
from treadle.project import Project
from treadle.record.feedback import UNSEEN, Feedback, Kind, can_be_seen
from treadle.record.interaction import is_interaction_id
from treadle.record.recorder import FEEDBACK, INTERACTIONS
from treadle.text.accounting import Accounting, Quarantined
from treadle.text.sql_database import SqlDatabase

FIELDS = ("interaction", "thumbs", "score", "correction", "preference", "comment", "user", "time")
_SAYING: tuple[Kind, ...] = ("thumbs", "score", "correction", "preference")
_UP = frozenset({"up", "1", "1.0", "true", "yes", "good", "positive", "like", "thumbs_up", "+1", "👍"})
_DOWN = frozenset({"down", "0", "0.0", "-1", "false", "no", "bad", "negative", "dislike", "thumbs_down", "👎"})
_ENV = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_SECONDS = 3600.0  # a query may take
ERASED, BEFORE, EMPTY = "feedback.erased", "feedback.imported_before", "feedback.says_nothing"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where it lies, counted from 1, and its columns; ``wrong`` says why there are none."""

    name: str
    number: int
    columns: Mapping[str, Any]
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    """What has to be known of an interaction to say something of it."""

    id: str
    keeps_text: bool
    choices: int


class WrongRowError(Exception):
    """A row that cannot be feedback; the message is the reason, and quotes nothing of it."""


def import_feedback(
    project: Project,
    place: str,
    fields: Mapping[str, str],
    *,
    query: str | None = None,
    note: str | None = None,
) -> ImportedRows:
    """Take in every row of a CSV or JSON-lines file, or of ``query`` at a database URL. The caller holds the lock.

    ``fields`` names the column of each of ``FIELDS``. The column of the interaction holds ids (``int-...``) or the
    request ids under which they were recorded. A row that says several things (thumbs and a correction) is several
    pieces of feedback and counts once.
    """
    columns = _columns(fields)
    accounting = Accounting()

    def work(run: Run) -> Any:
        taker = _Taker(project, columns, accounting)
        for row in _rows(place, query, columns):
            taker.take(row)
        return account(run, accounting)

    done = import_run(project, "import.feedback", work, note=note, once=False, columns=len(columns))
    return ImportedRows(done.run, accounting)


def _columns(fields: Mapping[str, str]) -> dict[str, str]:
    for name in fields:
        if name not in FIELDS:
            raise UserError(f"import feedback: --fields has no {name!r};{nearest(name, FIELDS)}")
    if "interaction" not in fields or not any(name in fields for name in _SAYING):
        raise UserError(
            "import feedback: --fields needs interaction=COLUMN and one of"
            f" {', '.join(_SAYING)}, as in interaction=id,thumbs=rating"
        )
    return dict(fields)


# -- where rows come from


def _rows(place: str, query: str | None, columns: Mapping[str, str]) -> Iterator[Row]:
    if query is not None or re.match(r"[a-z0-9+]+://", place) or _ENV.search(place):
        return _from_database(place, query, columns)
    suffix = Path(place.removesuffix(".gz")).suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _from_csv(place, columns, "\t" if suffix == ".tsv" else ",")
    if suffix in (".jsonl", ".ndjson"):
        return _from_lines(place)
    raise UserError(f"import feedback: {place} is no .csv, .tsv or .jsonl file, and no database URL with --query")


def _from_lines(place: str) -> Iterator[Row]:
    for line in read_lines(place):
        try:
            found = json.loads(line.data or b"")
        except (ValueError, RecursionError):
            found = None
        whole = isinstance(found, dict)
        yield Row(f"{line.place} line", line.number, found if whole else {}, "" if whole else "not a JSON object")


def _from_csv(place: str, columns: Mapping[str, str], delimiter: str) -> Iterator[Row]:
    path = Path(place).expanduser()
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"import feedback: {place}: {error.strerror}; give a file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"import feedback: {place} is not UTF-8 at byte {error.start}; convert it first") from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        head = next(reader, [])
        _check_columns(head, columns, place)
        for number, values in enumerate(reader, start=1):
            if not values:
                continue
            fits = len(values) == len(head)
            wrong = "" if fits else f"{len(values)} values under {len(head)} columns"
            yield Row(f"{path.name} row", number, dict(zip(head, values, strict=False)), wrong)
    except csv.Error as error:
        raise UserError(f"import feedback: {place} line {reader.line_num}: {error}; mend the file") from None


def _from_database(place: str, query: str | None, columns: Mapping[str, str]) -> Iterator[Row]:
    if query is None:
        raise UserError("import feedback: a database needs --query, as in --query 'select id, rating from feedback'")
    with SqlDatabase(place, where="import feedback", seconds=_SECONDS).reading() as reading:
        asked = query.strip().removesuffix(";")
        _check_columns(reading.columns(asked), columns, "the query")
        for number, row in enumerate(reading.rows(asked), start=1):
            yield Row("query row", number, {name: _plain(value) for name, value in row.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _check_columns(found: list[str], columns: Mapping[str, str], place: str) -> None:
    for column in columns.values():
        if column not in found:
            raise UserError(f"import feedback: {place} has no column {column!r};{nearest(column, list(found))}")


# -- what becomes of them


class _Taker:
    """Takes row after row, and counts."""

    def __init__(self, project: Project, columns: Mapping[str, str], accounting: Accounting) -> None:
        self._recorder, self._keys = project.record.recorder, project.record.workspace.keys
        self._columns, self._accounting = columns, accounting
        self._admission = Admission(project)
        journal = project.record.workspace.journal
        self._known = {row["id"] for row in journal.read(FEEDBACK) if row.get("source") == "import"}
        self._requests: dict[str, str | None] = {}
        self._answers: dict[str, int] = {}  # read once: looking each up would read its segment again
        for row in journal.read(INTERACTIONS):
            if row.get("erased"):
                continue
            self._answers[row["id"]] = len(row["alternatives"]) * 2 + (row["messages"] is not None)
            if row["request"]:
                self._requests[row["request"]] = None if row["request"] in self._requests else row["id"]

    def take(self, row: Row) -> None:
        """One row: kept, dropped by a rule, or quarantined with its number."""
        accounting = self._accounting
        accounting.read += 1
        try:
            if row.wrong:
                raise WrongRowError(row.wrong)
            said = {name: _value(row.columns.get(column)) for name, column in self._columns.items()}
            rule = self._rule(said)
        except WrongRowError as error:
            accounting.quarantined.append(Quarantined(f"{row.name} {row.number}", 0, str(error)))
            return
        if rule:
            accounting.dropped[rule] = accounting.dropped.get(rule, 0) + 1
        else:
            accounting.kept += 1

    def _rule(self, said: dict[str, str]) -> str:
        """Keep what it says; the rule that drops it, or nothing."""
        if not any(said.get(name) for name in _SAYING):
            return EMPTY
        found = self._interaction(said["interaction"])
        person = self._admission.person(said.get("user"))
        if self._admission.erased(person, said.get("correction"), said.get("comment")):
            return ERASED
        rows = [self._feedback(found, kind, said, person) for kind in _SAYING if said.get(kind)]
        new = [row for row in rows if row.id not in self._known]
        for row in new:
            self._known.add(row.id)
            self._recorder.feedback(row)
        return "" if new else BEFORE

    def _interaction(self, name: str) -> _Known:
        identifier = name if is_interaction_id(name) else self._requests.get(name, "")
        if identifier is None:
            raise WrongRowError("more than one interaction has this request id; name it by int-...")
        found = self._answers.get(identifier)
        if found is None:
            raise WrongRowError("there is no such interaction, or it was erased")
        return _Known(identifier, bool(found & 1), found // 2 + 1)

    def _feedback(self, found: _Known, kind: Kind, said: dict[str, str], person: str | None) -> Feedback:
        given = moment_of(_number(said["time"])) if said.get("time") else None
        if said.get("time") and given is None:
            raise WrongRowError("time: expected ISO 8601, or seconds since 1970")
        if given is not None and self._admission.is_future(given):
            raise WrongRowError(FUTURE)
        value, clean = _worth(kind, said[kind], found), self._admission.clean
        keeps = self._admission.keeps_text and found.keeps_text
        if kind == "correction" and not keeps:
            raise WrongRowError("correction: no text is kept of this interaction, nor of what is said of it")
        comment = said.get("comment") if kind == next(name for name in _SAYING if said.get(name)) else None
        identity = [found.id, kind, said[kind], comment or "", person or "", said.get("time", "")]
        made = int(given.timestamp() * 1000) if given else time_of(found.id) or 0
        return Feedback(
            id=id_at("fb", made, self._keys.keyed("import", canonical_json(identity).decode())),
            interaction=found.id,
            time=iso(given or datetime.now(UTC)),
            kind=kind,
            value=value,
            correction=clean(said[kind]) if kind == "correction" else None,
            comment=clean(comment) if comment and keeps else None,
            user=person,
            source="import",
        )


def _value(value: Any) -> str:
    """A cell as text, without the space around it; nothing for what is empty."""
    if value is None:
        return ""
    text = str(value) if isinstance(value, str | int | float) else canonical_json(value).decode()
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise WrongRowError("half of a surrogate pair")
    return text.strip()


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _worth(kind: Kind, text: str, found: _Known) -> float | None:
    if kind == "correction":
        if not can_be_seen(text):
            raise WrongRowError(f"correction: {UNSEEN}")
        return None
    if kind == "thumbs":
        word = text.lower()
        if word not in _UP | _DOWN:
            raise WrongRowError("thumbs: expected up or down, 1 or 0, true or false")
        return 1.0 if word in _UP else 0.0
    number = _number(text)
    if not isinstance(number, float):
        raise WrongRowError(f"{kind}: expected a number")
    if kind == "score" and not 0 <= number <= 1:
        raise WrongRowError("score: expected a number from 0 to 1")
    if kind == "preference" and not (number.is_integer() and 0 <= number < found.choices):
        raise WrongRowError(f"preference: the answer had {found.choices} choices, counted from 0")
    return number
