"""What the index of documents keeps in memory: every list by number, and which lists are kept as a change of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from treadle.core.errors import Corrupt
from treadle.record.cache_file import CacheFile


@dataclass
class Known:
    """Lists by number, and the lists that have each one as their base."""

    made: bytes
    names: dict[int, str] = field(default_factory=dict)
    children: dict[int, list[int]] = field(default_factory=dict)

    def reached(self, gained: Iterable[int], lost: set[int], confirmed: Callable[[str], bool | None]) -> dict[str, int]:
        """The lists that hold a document, with their numbers: those that gained it, and what was made of these and did
        not lose it. ``confirmed`` looks a list up, where the record of a gain or a loss may be another document's, and
        gives None for a list that cannot be read; then the lists that were made of it are asked themselves."""
        found: dict[str, int] = {}
        waiting = [(number, False) for number in gained]
        while waiting:
            number, sure = waiting.pop()
            name = self.names.get(number)
            if name is None:
                raise Corrupt(f"the index of documents knows no list {number}")
            if name in found:
                continue
            held = True if sure else confirmed(name)
            if held:
                found[name] = number
            if held is not False:
                waiting += [(child, held is True and child not in lost) for child in self.children.get(number, ())]
        return found


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
            return known
