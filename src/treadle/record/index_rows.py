"""Rows of the journal as rows of the interaction index: interactions, and what feedback and test cases say of them."""

from __future__ import annotations

import json
import math
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from treadle.core.identifiers import time_of
from treadle.record.index_file import SPREAD
from treadle.record.interaction import SHADOW, is_smoke
from treadle.record.interaction_filter import ORIGINS, Origin, moment
from treadle.record.recorder import CASES, FEEDBACK, INTERACTIONS

STREAMS = (INTERACTIONS, FEEDBACK, CASES)
SLOT = math.log(1.1)  # figures of latency are kept in steps of ten percent
_UNSURE = 0.6  # a label with less probability than this is worth a look
_POOR = 0.5  # and a score below this
_LATEST = (1 << 42) - 2  # milliseconds since 1970 that a key has room for
_FACETS = "release, model, endpoint, status, stored, smoke, erased, unsure"
_VOICES = "thumbs, poor, corrected, commented, rated, reviewed, is_case"
_MARKS = ", ".join("?" * 15)
_INSERT = f"INSERT INTO interactions VALUES ({', '.join('?' * 19)})"
_INSERT_FEEDBACK = f"INSERT OR REPLACE INTO feedback VALUES ({', '.join('?' * 13)})"

Facet = tuple[str | int, ...]
Placed = tuple[dict[str, Any], int, int]  # a row, and where its line begins and how long it is


@dataclass(slots=True)
class _Voice:
    """What was said of one interaction: its facets, and the last score."""

    thumbs: int = -1
    score: float | None = None
    corrected: int = 0
    commented: int = 0
    opinions: int = 0
    reviewed: int = 0
    is_case: int = 0

    def facets(self) -> Facet:
        """In the order of the table's columns."""
        poor = int(self.score is not None and self.score < _POOR)
        rated = int(self.opinions > 0)
        return (self.thumbs, poor, self.corrected, self.commented, rated, self.reviewed, self.is_case)


class IndexRows:
    """Puts rows in and takes them out, inside one transaction."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor
        self._facets: dict[Facet, int] = {}
        self._people: dict[str, int] = {}

    def take(self, stream: str, source: int, rows: Sequence[Placed]) -> None:
        """Put the rows of a source in; a row that is there already is replaced."""
        taking: dict[str, Callable[[int, Sequence[Placed]], None]] = {
            INTERACTIONS: self._interactions,
            FEEDBACK: self._feedback,
            CASES: self._cases,
        }
        if rows:
            taking[stream](source, rows)

    def remove(self, source: int) -> None:
        """Take every row of a source out."""
        ((low, high),) = self._rows("SELECT low, high FROM sources WHERE id = ?", source)
        sql = "DELETE FROM interactions WHERE key BETWEEN ? AND ? AND source = ?"
        self._cursor.execute(sql, (low, high, source))
        names: set[str] = set()
        for table in ("feedback", "cases"):
            names.update(name for (name,) in self._rows(f"SELECT interaction FROM {table} WHERE source = ?", source))
            self._cursor.execute(f"DELETE FROM {table} WHERE source = ?", (source,))
        self._speak(names)
        self._cursor.execute("UPDATE sources SET low = NULL, high = NULL WHERE id = ?", (source,))

    # -- interactions
    def _interactions(self, source: int, rows: Sequence[Placed]) -> None:
        known = {row["id"]: (row, start, length) for row, start, length in rows}
        names = json.dumps(list(known))
        self._cursor.execute("DELETE FROM interactions WHERE id IN (SELECT value FROM json_each(?))", (names,))
        voices = self._voices(names)
        keys = []
        for name, (row, start, length) in known.items():
            voice = voices.get(name) or _Voice()
            try:
                values = self._columns(row, voice)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                continue  # no interaction's row; `get` says so
            keys.append(self._insert(_key(row), (name, *values, source, start, length)))
        if keys:
            sql = "UPDATE sources SET low = min(coalesce(low, ?), ?), high = max(coalesce(high, ?), ?) WHERE id = ?"
            low, high = min(keys), max(keys)
            self._cursor.execute(sql, (low, low, high, high, source))

    def _columns(self, row: dict[str, Any], voice: _Voice) -> tuple[Any, ...]:
        """A row of the journal as the table has it, from `facet` to `opinions`."""
        tokens, seconds, confidence = row.get("tokens") or {}, row.get("seconds") or {}, row.get("confidence")
        erased = bool(row.get("erased"))
        stored = row.get("messages") is not None and not erased
        smoke = ORIGINS[_origin(row)]
        sure = min(confidence) if confidence else None
        unsure = sure is not None and sure < _UNSURE
        names = (str(row["release"]), str(row["model"]), str(row["endpoint"]), str(row["status"]))
        facet = self._facet((*names, int(stored), smoke, int(erased), int(unsure), *voice.facets()))
        ttft = seconds.get("ttft")
        return (
            facet,
            self._person(row.get("user")),
            self._person(row.get("key")),
            int(tokens.get("prompt") or 0),
            int(tokens.get("completion") or 0),
            seconds.get("total"),
            ttft,
            None if ttft is None or smoke else math.floor(math.log(max(ttft, 1e-6)) / SLOT),
            row.get("tokens_per_second"),
            row.get("finish_reason"),
            row.get("share"),
            sure,
            voice.score,
            voice.opinions,
        )

    def _insert(self, key: int, values: tuple[Any, ...]) -> int:
        """Put a row in, at the next key that is free."""
        while True:
            try:
                self._cursor.execute(_INSERT, (key, *values))
            except sqlite3.IntegrityError as error:
                if error.sqlite_errorname not in ("SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID"):
                    raise
                key += 1  # another row of the same moment
            else:
                return key

    def _feedback(self, source: int, rows: Sequence[Placed]) -> None:
        names = set()
        for row, start, length in rows:
            if not isinstance(row.get("interaction"), str):
                continue
            value, user = row.get("value"), self._person(row.get("user"))
            word = (row["interaction"], str(row.get("time")), str(row.get("kind")), value, user)
            said = value is not None or bool(row.get("correction"))  # neither: an earlier word is taken back
            marks = (said, bool(row.get("comment")), row.get("source") == "console", bool(row.get("erased")))
            self._cursor.execute(_INSERT_FEEDBACK, (row["id"], *word, *marks, source, start, length))
            names.add(row["interaction"])
        self._speak(names)

    def _cases(self, source: int, rows: Sequence[Placed]) -> None:
        names = set()
        for row, _, _ in rows:
            if isinstance(row.get("interaction"), str) and not row.get("erased"):
                values = (row["id"], row["interaction"], source)
                self._cursor.execute("INSERT OR REPLACE INTO cases VALUES (?, ?, ?)", values)
                names.add(row["interaction"])
        self._speak(names)

    # -- what was said of them

    def _speak(self, names: set[str]) -> None:
        """Draw again what follows from feedback and test cases."""
        if not names:
            return
        given = json.dumps(sorted(names))
        voices = self._voices(given)
        sql = (
            f"SELECT i.id, i.key, {_FACETS} FROM interactions i JOIN facets f ON f.id = i.facet "
            "WHERE i.id IN (SELECT value FROM json_each(?))"
        )
        for name, key, *facet in self._rows(sql, given):
            voice = voices.get(name) or _Voice()
            values = (self._facet((*facet, *voice.facets())), voice.score, voice.opinions, key)
            self._cursor.execute("UPDATE interactions SET facet = ?, score = ?, opinions = ? WHERE key = ?", values)

    def _voices(self, names: str) -> dict[str, _Voice]:
        """By interaction, out of a JSON list of them: each person's last word of each kind."""
        words: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]] = defaultdict(dict)
        sql = (
            "SELECT interaction, kind, coalesce(user, id), said, value, commented, console FROM feedback "
            "WHERE erased = 0 AND interaction IN (SELECT value FROM json_each(?)) ORDER BY time, id"
        )
        for name, kind, user, said, *word in self._rows(sql, names):
            words[name].pop((kind, user), None)
            if said:
                words[name][kind, user] = tuple(word)
        found = defaultdict(_Voice, {name: _voice(latest) for name, latest in words.items()})
        sql = "SELECT interaction FROM cases WHERE interaction IN (SELECT value FROM json_each(?))"
        for (name,) in self._rows(sql, names):
            found[name].is_case = 1
        return found

    # -- names

    def _facet(self, facet: Facet) -> int:
        known = self._facets.get(facet)
        if known is None:
            found = self._rows(f"SELECT id FROM facets WHERE ({_FACETS}, {_VOICES}) = ({_MARKS})", *facet)
            if not found:
                self._cursor.execute(f"INSERT INTO facets ({_FACETS}, {_VOICES}) VALUES ({_MARKS})", facet)
                found = self._rows("SELECT last_insert_rowid()")
            known = self._facets[facet] = int(found[0][0])
        return known

    def _person(self, digest: str | None) -> int | None:
        if digest is None:
            return None
        if digest not in self._people:
            self._cursor.execute("INSERT OR IGNORE INTO people (digest) VALUES (?)", (digest,))
            self._people[digest] = self._rows("SELECT id FROM people WHERE digest = ?", digest)[0][0]
        return self._people[digest]

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._cursor.execute(sql, values).fetchall()


def _voice(latest: dict[tuple[Any, ...], tuple[Any, ...]]) -> _Voice:
    """What words come to, given in order; the last of a kind counts."""
    voice = _Voice(opinions=len(latest))
    for (kind, _), (value, commented, console) in latest.items():
        voice.commented |= commented
        voice.reviewed |= console
        if kind == "thumbs":
            voice.thumbs = int(value == 1)
        elif kind == "score":
            voice.score = value
        elif kind == "correction":
            voice.corrected = 1
    return voice


def _key(row: dict[str, Any]) -> int:
    """Sorts by time; rows of one millisecond differ by their ids."""
    try:
        millis = moment(row["time"])
    except (KeyError, TypeError, ValueError):
        millis = time_of(row["id"]) or 0
    millis = min(max(millis, 0), _LATEST)
    return millis * SPREAD + zlib.crc32(row["id"].encode("utf-8", "surrogatepass")) % SPREAD


def _origin(row: dict[str, Any]) -> Origin:
    if row.get("origin") == SHADOW:
        return "shadow"
    return "smoke" if is_smoke(row.get("metadata")) else "traffic"
