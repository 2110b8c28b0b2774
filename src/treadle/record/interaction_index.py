"""The index of interactions: what a page asks of a million of them, without reading the journal.

A cache beside the journal (`cache/interactions.db`), drawn from it and thrown away when in doubt. It holds figures,
names and keyed digests, and where each row lies; texts are read from the journal, from a verified segment. What was
written a moment ago is in it after `catch_up`.
"""

from __future__ import annotations

import heapq
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from treadle.core.errors import Corrupt, UserError
from treadle.core.workspace import Workspace
from treadle.record.feedback import Feedback
from treadle.record.index_feed import Feed
from treadle.record.index_figures import Figures as Figures
from treadle.record.index_figures import figures
from treadle.record.index_file import BUCKET_SECONDS, SPREAD, index_file
from treadle.record.interaction import Interaction
from treadle.record.interaction_filter import COLUMNS, END
from treadle.record.interaction_filter import InteractionFilter as InteractionFilter
from treadle.record.interaction_filter import InteractionRow as InteractionRow
from treadle.record.interaction_filter import Page as Page
from treadle.record.recorder import FEEDBACK, INTERACTIONS
from treadle.record.row_reader import RowReader, parsed
from treadle.record.text_search import holding

T = TypeVar("T")

_log = logging.getLogger(__name__)

MAX_PAGE = 500  # rows
_SEARCHED_ROWS = 20_000  # a page looks at so many texts at most
_SEARCH_SECONDS = 0.06
_CHUNK = 2_000  # rows that are looked up together
_LATE_SECONDS = 0.05  # `get` and `feedback` wait so long for the index to catch up, then they read the journal
_MENDING_SECONDS = 2.0
_SAMPLED = 1_000  # the newest that nobody rated, out of which a sample is drawn
_BUCKET = BUCKET_SECONDS * 1000 * SPREAD
_EVERYTHING = InteractionFilter()

# For the queue: what makes an answer worth a look, in the order it is shown.
_REASONS = (
    (" AND thumbs = 0", "rated down"),
    (" AND poor = 1", "a low score"),
    (" AND unsure = 1", "the model was not sure"),
)
_SAMPLE = "drawn from the latest that nobody rated"


class InteractionIndex:
    """Lists, counts and finds interactions. Usable from any thread; nothing is opened before the first use."""

    def __init__(self, workspace: Workspace) -> None:
        self._file = index_file(workspace.root / "cache" / "interactions.db")
        self._feed = Feed(workspace, self._file)
        self._reader = RowReader(workspace)
        self._catching_up = threading.Lock()
        self._journal = workspace.journal

    def catch_up(self, seconds: float | None = None) -> bool:
        """Take in what the journal has gained, the newest first; stops after about ``seconds`` where they are given.

        True when nothing is left to read; False as well while another thread is at it for longer than that.
        """
        if not self._catching_up.acquire(timeout=-1 if seconds is None else seconds):
            return False
        try:
            return self._mended(lambda: self._feed.catch_up(seconds))
        finally:
            self._catching_up.release()

    def waiting(self) -> int:
        """Interactions that are known of and not read in yet; more than none only while the index is being made."""
        return self._mended(self._feed.waiting)

    # -- lists

    def count(self, where: InteractionFilter = _EVERYTHING) -> int:
        """How many there are; ``text`` does not count."""
        return self._mended(lambda: self._count(where))

    def page(self, where: InteractionFilter = _EVERYTHING, *, before: str | None = None, limit: int = 50) -> Page:
        """The newest, or those after a page that gave ``before`` as its ``next``. ``UserError`` for what is neither a
        cursor nor a time. A search for a text ends after a while; the next page goes on where it ended."""
        if not 1 <= limit <= MAX_PAGE:
            raise UserError(f"limit {limit}: expected 1 to {MAX_PAGE} rows a page")
        start = END if before is None else _cursor(before)
        if where.text:
            return self._mended(lambda: self._search(where, start, limit))
        return self._mended(lambda: self._page(where, start, limit))

    def queue(self, limit: int) -> list[tuple[InteractionRow, str]]:
        """What is worth a person's look, with the reason: bad ratings first, then answers the model was not sure of,
        then a sample of those that nobody rated; newest first in each. Left out is what a person has labeled."""
        return self._mended(lambda: self._queue(limit))

    def _count(self, where: InteractionFilter) -> int:
        facets, values = where.facets()
        low, high = where.span()
        among = f"facet IN (SELECT id FROM facets WHERE {facets})"
        if where.user is not None:
            sql = f"SELECT count(*) FROM interactions WHERE user = ? AND {among} AND key >= ? AND key < ?"
            return self._number(sql, self._person(where.user), *values, low, high)
        if (low, high) == (0, END):
            return self._number(f"SELECT coalesce(sum(requests), 0) FROM facets WHERE {facets}", *values)
        first, last = -(-low // _BUCKET), high // _BUCKET  # whole buckets are counted already
        rows = f"SELECT count(*) FROM interactions WHERE {among} AND key >= ? AND key < ?"
        if first >= last:
            return self._number(rows, *values, low, high)
        sql = f"SELECT coalesce(sum(requests), 0) FROM volume WHERE {among} AND bucket >= ? AND bucket < ?"
        found = self._number(sql, *values, first, last)
        for start, end in ((low, first * _BUCKET), (last * _BUCKET, high)):
            found += self._number(rows, *values, start, end) if start < end < END else 0
        return found

    def _page(self, where: InteractionFilter, before: int, limit: int) -> Page:
        keys = self._keys(where, before, limit + 1)
        more = str(keys[limit - 1]) if len(keys) > limit else None
        return Page(tuple(self._rows(keys[:limit]).values()), more)

    def _keys(self, where: InteractionFilter, before: int, limit: int, extra: str = "") -> list[int]:
        """The newest keys below ``before``, out of one list for each combination of facets that is wanted."""
        facets, values = where.facets()
        low, high = where.span()
        high = min(high, before)
        mine, person = ("user = ? AND ", [self._person(where.user)]) if where.user is not None else ("", [])
        listed = f"FROM interactions WHERE {mine}facet = {{}} AND key >= ? AND key < ?"
        sql = (
            f"SELECT f.id, (SELECT max(key) {listed.format('f.id')}) AS head FROM facets f WHERE {facets}{extra} "
            "ORDER BY head DESC"
        )
        best: list[int] = []
        for facet, head in self._file.reading.query(sql, (*person, low, high, *values)):
            if head is None or (len(best) == limit and head < best[-1]):
                break
            each = f"SELECT key {listed.format('?')} ORDER BY key DESC LIMIT ?"
            least = best[-1] if len(best) == limit else low
            found = self._file.reading.query(each, (*person, facet, least, high, limit))
            best = heapq.nlargest(limit, best + [key for (key,) in found])
        return best

    def _rows(self, keys: list[int]) -> dict[int, InteractionRow]:
        sql = (
            f"SELECT {COLUMNS} FROM interactions i JOIN facets f ON f.id = i.facet LEFT JOIN people p ON p.id = i.user "
            "WHERE i.key IN (SELECT value FROM json_each(?)) ORDER BY i.key DESC"
        )
        rows = self._file.reading.query(sql, (json.dumps(keys),))
        return {values[0]: InteractionRow.of(*values) for values in rows}

    def _search(self, where: InteractionFilter, before: int, limit: int) -> Page:
        """Look at the texts of the newest rows until the page is full, or it has taken long enough."""
        deadline = time.monotonic() + _SEARCH_SECONDS
        matches = holding(where.text or "")
        found: list[int] = []
        searched = 0
        while searched < _SEARCHED_ROWS and len(found) < limit and time.monotonic() < deadline:
            chunk = min(_CHUNK, _SEARCHED_ROWS - searched)
            keys = self._keys(where, before, chunk)
            for key, line in self._lines(keys):
                searched += 1
                before = key
                if matches(line):
                    found.append(key)
                if len(found) == limit or time.monotonic() > deadline:
                    break
            else:
                if len(keys) < chunk:
                    return Page(tuple(self._rows(found).values()), None, searched)
        return Page(tuple(self._rows(found).values()), str(before), searched)

    def _lines(self, keys: list[int]) -> Iterator[tuple[int, bytes]]:
        sql = (
            "SELECT key, file, segment, i.start, length FROM interactions i JOIN sources s ON s.id = i.source "
            "WHERE key IN (SELECT value FROM json_each(?)) ORDER BY key DESC"
        )
        for key, *place in self._file.reading.query(sql, (json.dumps(keys),)):
            try:
                yield key, self._reader.line(INTERACTIONS, *place)
            except Corrupt:  # verify tells; the others are searched all the same
                yield key, b""

    def _queue(self, limit: int) -> list[tuple[InteractionRow, str]]:
        open_to = " AND status = 'ok' AND stored = 1 AND corrected = 0 AND is_case = 0 AND reviewed = 0"
        real = InteractionFilter(origin="traffic")
        found: dict[int, str] = {}
        for condition, reason in _REASONS:
            for key in self._keys(real, END, limit, open_to + condition):
                found.setdefault(key, reason)
        unrated = self._keys(real, END, _SAMPLED, open_to + " AND rated = 0")
        drawn = sorted(set(unrated) - found.keys(), key=lambda key: key % SPREAD)[: max(limit - len(found), 0)]
        found.update((key, _SAMPLE) for key in sorted(drawn, reverse=True))
        chosen = list(found)[:limit]
        rows = self._rows(chosen)
        return [(rows[key], found[key]) for key in chosen if key in rows]

    # -- figures

    def figures(self, since: str, bucket_seconds: int) -> list[Figures]:
        """Requests, failures, latency, tokens and thumbs by span of time, from ``since`` until now; see `Figures`.

        Spans of a multiple of 300 seconds are quick however much there is. ``UserError`` for more than 5,000 of them.
        """
        return self._mended(lambda: figures(self._file.reading, since, bucket_seconds))

    # -- one of them

    def get(self, interaction: str) -> Interaction | None:
        """The whole row, text included; None when there never was one, or it was erased. ``Corrupt`` when the segment
        it lies in is damaged."""
        row = self._read(interaction)
        if row is None and self.catch_up(_LATE_SECONDS) and self._feed.whole:
            row = self._read(interaction)
        elif row is None:
            row = self._journal.find(INTERACTIONS, interaction)
        return Interaction.from_dict(row) if row and not row.get("erased") else None

    def feedback(self, interaction: str) -> list[Feedback]:
        """What was said of an interaction so far, oldest first."""
        rows: list[dict[str, Any] | None] = [None]
        if self.catch_up(_LATE_SECONDS) and self._feed.whole:
            places = self._places(FEEDBACK, "interaction = ? ORDER BY time, r.id", interaction)
            rows = [parsed(self._reader.line(FEEDBACK, *place), name) for name, *place in places]
        if None in rows:  # not read in yet, or it lies somewhere else by now
            rows = [*self._journal.about(FEEDBACK, "interaction", interaction)]
        return [Feedback.from_dict(row) for row in rows if row]

    def _read(self, interaction: str) -> dict[str, Any] | None:
        """A row by its place; None where it is not known, or lies somewhere else by now."""
        for identifier, *place in self._places(INTERACTIONS, "id = ?", interaction):
            return parsed(self._reader.line(INTERACTIONS, *place), identifier)
        return None

    def _places(self, table: str, condition: str, value: str) -> list[tuple[Any, ...]]:
        sql = (
            f"SELECT r.id, file, segment, r.start, length FROM {table} r JOIN sources s ON s.id = r.source "
            f"WHERE r.{condition}"
        )
        return self._mended(lambda: self._file.reading.query(sql, (value,)))

    # -- keeping

    def scrub(self) -> None:
        """Leave no byte of what was erased in the file. Nothing to do where there is none."""
        if self._file.exists():
            self._mended(self._scrub)

    def _scrub(self) -> None:
        self._feed.catch_up(None)
        with self._file.writing.transaction() as cursor:
            cursor.execute(
                "DELETE FROM people WHERE id NOT IN (SELECT user FROM interactions WHERE user NOTNULL "
                "UNION SELECT api_key FROM interactions WHERE api_key NOTNULL "
                "UNION SELECT user FROM feedback WHERE user NOTNULL)"
            )
        self._file.writing.scrub()

    def close(self) -> None:
        """Close the files."""
        self._reader.close()
        self._file.close()

    # -- the file

    def _mended(self, work: Callable[[], T]) -> T:
        """What ``work`` gives; where the file turns out to be damaged, it is made anew first, the newest rows at once
        and the others at the next `catch_up`."""
        try:
            return work()
        except (Corrupt, sqlite3.IntegrityError) as error:
            _log.warning("the index of interactions is made anew: %s", error)
            self._file.discard()
            self._feed.catch_up(_MENDING_SECONDS)
            return work()

    def _number(self, sql: str, *values: Any) -> int:
        return int(self._file.reading.query(sql, values)[0][0])

    def _person(self, digest: str) -> int:
        """The number a person has in the file; none has 0."""
        rows = self._file.reading.query("SELECT id FROM people WHERE digest = ?", (digest,))
        return int(rows[0][0]) if rows else 0


def _cursor(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise UserError(f"before {text[:40]!r}: expected what a page gave to continue with")
    return min(int(text), END)
