"""What the index of documents keeps in memory: every list by number, and which lists are kept as a change of it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain

from treadle.core.errors import Corrupt
from treadle.record.cache_file import CacheFile


@dataclass
class Known:
    """Lists by number, the lists that have each one as their base, and the kinds of the artifacts that have it."""

    made: bytes
    names: dict[int, str] = field(default_factory=dict)
    children: dict[int, list[int]] = field(default_factory=dict)
    kinds: dict[int, list[str]] = field(default_factory=dict)
    holdings: int = 0

    def reached(
        self, gained: Iterable[int], lost: set[int], last: int, confirmed: Callable[[str], bool | None]
    ) -> set[int]:
        """The lists up to ``last`` that hold a document: those that gained it, and what was made of these and did not
        lose it.

        ``confirmed`` looks a list up, where the record of a gain or a loss may be another document's, and gives None
        for a list that cannot be read; then the lists that were made of it are asked themselves.
        """
        found: set[int] = set()
        doubtful, sure = [each for each in gained if each <= last], list[int]()
        children, none = self.children, ()
        while doubtful or sure:
            while sure:
                number = sure.pop()
                if number not in found and number <= last:
                    found.add(number)
                    for child in children.get(number, none):
                        (doubtful if child in lost else sure).append(child)
            if doubtful:
                number = doubtful.pop()
                held = number <= last and number not in found and confirmed(self._name(number))
                if held:
                    sure.append(number)
                elif held is None:
                    doubtful += children.get(number, none)
        return found

    def _name(self, number: int) -> str:
        if number not in self.names:
            raise Corrupt(f"the index of documents knows no list {number}")
        return self.names[number]

    def counts(self, lists: Iterable[int]) -> Counter[str]:
        """How many artifacts of each kind have these lists."""
        return Counter(chain.from_iterable(self.kinds.get(number, ()) for number in lists))


class DocumentTree:
    """Reads what is new in the file, and all of it when that is another one."""

    def __init__(self, file: CacheFile) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._known = Known(b"")

    def known(self) -> Known:
        """Everything in the file by now."""
        with self._lock:
            ((made,),) = self._file.reading.query("SELECT made FROM progress")
            if made != self._known.made:
                self._known = Known(made)
            known = self._known
            sql = "SELECT number, object, base FROM lists WHERE number > ? ORDER BY number"
            for number, name, base in self._file.reading.query(sql, (len(known.names),)):
                if base:
                    known.children.setdefault(base, []).append(number)
                known.names[number] = name
            sql = "SELECT rowid, list, kind FROM holdings WHERE rowid > ? ORDER BY rowid"
            for row, number, kind in self._file.reading.query(sql, (known.holdings,)):
                known.kinds.setdefault(number, []).append(kind)
                known.holdings = row
            return known
