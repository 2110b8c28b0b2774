"""Which artifacts hold a document: one index for every question of that kind, exact at any moment.

A cache (`cache/documents.db`), made from the ledger's rows about artifacts and the lists of documents in the store,
thrown away when in doubt. What it says is confirmed in the lists themselves, and artifacts that it has not taken in yet
are looked into one by one, so an answer never depends on how far it is.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from treadle.core.errors import Corrupt, UserError
from treadle.core.workspace import Workspace
from treadle.record.document_feed import DocumentFeed
from treadle.record.document_file import changes, document_file
from treadle.record.document_lists import ListReader
from treadle.record.document_tree import DocumentTree

T = TypeVar("T")

_SECONDS = 2.0  # a question takes in what is new for so long, and looks into the rest one by one
_MANY = 500  # lists; where more hold a document, only the latest artifacts are looked at

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holding:
    """An artifact that was made from a document, and the object with the list that says so."""

    seq: int
    digest: str
    kind: str
    list: str


@dataclass
class Holdings:
    """The latest artifacts that hold a document, and how many there are of each kind; ``whole`` are all of the one kind
    that was asked for. ``verified`` is False where a list was damaged, so that nobody can tell."""

    found: list[Holding] = field(default_factory=list)
    whole: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    verified: bool = True


class DocumentIndex:
    """Usable from any thread and from many processes; nothing is opened before the first use."""

    def __init__(self, workspace: Workspace) -> None:
        self._file = document_file(workspace.root / "cache" / "documents.db")
        self._store, self._ledger = workspace.store, workspace.ledger
        self._reader = ListReader(workspace.store)
        self._feed = DocumentFeed(workspace, self._file, self._reader)
        self._tree = DocumentTree(self._file)

    def catch_up(self, seconds: float | None = None) -> bool:
        """Take in what the ledger has gained; stops after about ``seconds`` where they are given.

        True when nothing is left; False as well where another process is at it.
        """
        return self._mended(lambda: self._feed.catch_up(seconds))

    def holders(self, document: str, kinds: Sequence[str], limit: int = 0, whole: str = "") -> Holdings:
        """What holds a document, the latest first, at most ``limit`` of a kind (0: all), and the digests of all of one
        kind. What was erased holds nothing; what was collected does."""
        try:
            self.catch_up(_SECONDS)
        except UserError as error:  # no room on the disk: what is there and the store itself are enough
            _log.warning("the index of documents is not brought up to date: %s", error)
        return self._mended(lambda: _Question(self, document, kinds, limit, whole).answer())

    def holding(self, documents: Iterable[str]) -> set[str]:
        """Artifacts of every kind that hold any of the documents. All of the index is checked first: this is for an
        erasure, which may miss nothing."""

        def whole() -> set[str]:
            self._feed.catch_up(None)
            self._feed.check()
            answers = [_Question(self, name, self._kinds(), 0, sure=True).answer() for name in sorted(set(documents))]
            return {each.digest for answer in answers for each in answer.found}

        return self._mended(whole)

    def _kinds(self) -> list[str]:
        sql = "SELECT kind FROM holdings UNION SELECT kind FROM unread"
        return [kind for (kind,) in self._file.reading.query(sql)]

    def scrub(self) -> None:
        """Forget what was erased. Where a list of documents went, the whole file goes, and is made anew when somebody
        asks; nothing to do where there is none."""
        if self._file.exists():
            self._mended(self._feed.scrub)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _mended(self, work: Callable[[], T]) -> T:
        """What ``work`` gives; where the file turns out to be damaged, it is made anew first."""
        try:
            return work()
        except (Corrupt, sqlite3.DatabaseError) as error:
            _log.warning("the index of documents is made anew: %s", error)
            self._file.discard()
            self._feed.catch_up(_SECONDS)
            return work()


class _Question:
    """One document, looked up at one moment. ``sure``: the index was checked, so only what it is in doubt about is
    looked up in the lists."""

    def __init__(
        self,
        index: DocumentIndex,
        document: str,
        kinds: Sequence[str],
        limit: int,
        whole: str = "",
        *,
        sure: bool = False,
    ) -> None:
        self._index, self._reading, self._store = index, index._file.reading, index._store
        self._document, self._kinds, self._limit = document, kinds, limit
        self._whole, self._sure = whole, sure
        self._looked: dict[str, bool | None] = {}
        self._result = Holdings()

    def answer(self) -> Holdings:
        """What holds the document."""
        # In this order: what is taken in meanwhile is among the rest, and of lists that came later nothing is said.
        rest = list(self._rest())
        tree = self._index._tree.known()
        last = len(tree.names)
        lists = tree.reached(*changes(self._reading, self._document), last, self._holds)
        few = not self._limit or len(lists) <= _MANY
        counts = Counter[str]() if few else tree.counts(lists)
        if few:
            rows = self._all(lists, [*self._kinds, self._whole])
        else:
            rows = [row for kind in self._kinds for row in self._latest(kind, lists)]
            rows += self._all(lists, [self._whole]) if counts[self._whole] else []
        known = {(each.digest, each.kind): each for each in rows if self._store.has_object(each.digest)}
        new = {(each.digest, each.kind): each for each in rest} | known
        result = self._result
        result.whole = {digest for digest, kind in new if kind == self._whole}
        new = {name: each for name, each in new.items() if each.kind in self._kinds}
        result.counts.update(kind for _, kind in new)
        if not few:
            result.counts = Counter({kind: counts[kind] for kind in self._kinds if counts[kind]})
            result.counts.update(kind for _, kind in new.keys() - known.keys())
        shown: Counter[str] = Counter()
        for each in sorted(new.values(), key=lambda each: -each.seq):
            if self._limit and shown[each.kind] >= self._limit:
                continue
            if self._sure or self._confirmed(each):
                result.found.append(each)
                shown[each.kind] += 1
            else:
                result.counts[each.kind] -= 1
        return result

    def _rest(self) -> Iterator[Holding]:
        """Artifacts that are not in the index, as far as they hold the document."""
        ((seen,),) = self._reading.query("SELECT seen FROM progress")
        unread = self._reading.query("SELECT digest, kind, seq FROM unread")
        rows = self._index._ledger.rows("artifact", after=seen)
        unread += [(row.body["digest"], row.body["kind"], row.seq) for row in rows if row.body["documents"]]
        for digest, kind, seq in unread:
            if kind in (*self._kinds, self._whole) and self._store.has_object(digest):
                try:
                    name = self._index._reader.of_artifact(digest)
                except Corrupt:
                    self._result.verified = False
                    continue
                if name and self._holds(name):
                    yield Holding(seq, digest, kind, name)

    def _holds(self, name: str) -> bool | None:
        """Whether a list holds the document; None where it is gone, or damaged."""
        if name not in self._looked:
            try:
                self._looked[name] = self._index._reader.holds(name, self._document)
            except Corrupt:
                self._looked[name] = None
                self._result.verified &= not self._store.has_object(name)
        return self._looked[name]

    def _confirmed(self, holding: Holding) -> bool:
        held = self._holds(holding.list)
        if held is False:
            raise Corrupt(f"the index says that {holding.list} holds {self._document}, and it does not")
        return held is True

    def _all(self, lists: Iterable[int], kinds: Sequence[str]) -> list[Holding]:
        sql = (
            "SELECT seq, digest, kind, object FROM holdings JOIN lists ON number = list WHERE "
            "list IN (SELECT value FROM json_each(?)) AND kind IN (SELECT value FROM json_each(?))"
        )
        among = json.dumps([*lists]), json.dumps(kinds)
        return [Holding(*row) for row in self._reading.query(sql, among)]

    def _latest(self, kind: str, lists: set[int]) -> list[Holding]:
        """The latest of a kind; nearly every artifact holds a document that more than a few do."""
        sql = (
            "SELECT seq, digest, kind, object, list FROM holdings JOIN lists ON number = list WHERE kind = ? "
            "AND seq < ? ORDER BY seq DESC LIMIT ?"
        )
        found: list[Holding] = []
        before, page = 1 << 62, 2 * self._limit
        while len(found) < self._limit:
            rows = self._reading.query(sql, (kind, before, page))
            found += [Holding(*row[:4]) for row in rows if row[4] in lists]
            if len(rows) < page:
                break
            before = rows[-1][0]
        return found[: self._limit]
