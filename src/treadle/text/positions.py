"""Documents of a corpus by their place in it. Quickest in ascending order: a row group is read once then."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.text.corpus import corpus_files, documents_of, open_corpus_file
from treadle.text.document import Document

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE = 500  # documents made of a row group at a time


class DocumentsAt:
    """The documents under a corpus's folder. Holds one row group, and some hundred documents of it."""

    def __init__(self, folder: Path) -> None:
        self._groups: list[tuple[Path, int]] = []
        self._firsts = [0]
        for path in corpus_files(folder):
            with open_corpus_file(path) as file:
                for group in range(file.num_row_groups):
                    self._groups.append((path, group))
                    self._firsts.append(self._firsts[-1] + file.metadata.row_group(group).num_rows)
        self._table: pa.Table | None = None
        self._group = -1
        self._start = self._end = 0
        self._near: list[Document] = []

    def __len__(self) -> int:
        return self._firsts[-1]

    def some(self, first: int, count: int) -> Iterator[Document]:
        """The ``count`` documents from number ``first`` on; ``IndexError`` where the corpus has no such."""
        for number in range(first, first + count):
            if not self._start <= number < self._end:
                self._read(number)
            yield self._near[number - self._start]

    def _read(self, number: int) -> None:
        group = bisect_right(self._firsts, number) - 1
        if not 0 <= group < len(self._groups):
            raise IndexError(number)
        if group != self._group or self._table is None:
            path, within = self._groups[group]
            with open_corpus_file(path) as file:
                self._table = file.read_row_group(within)
            self._group = group
        place = number - self._firsts[group]
        begin = place - place % _AT_ONCE
        batch = self._table.slice(begin, _AT_ONCE)
        self._near = documents_of(batch)
        self._start = self._firsts[group] + begin
        self._end = self._start + len(self._near)
