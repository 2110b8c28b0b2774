"""Documents that wait on disk until it is decided what becomes of them.

One file without a name, so that nothing is left of it however the process ends.
"""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from treadle.text.corpus import pack, unpack
from treadle.text.document import Document

Shard = list[Document]


class Spill:
    """Shards in order; ``with`` closes it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="treadle-")  # noqa: SIM115 (closed by `__exit__`)
        self._places: list[tuple[int, int]] = []  # first byte and length of each shard
        self._firsts = [0]  # number of the first document of each shard, and of all

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take(self, shards: Iterable[Shard]) -> Iterator[Shard]:
        """The shards as they come, each written before it goes on."""
        for shard in shards:
            data = pack(shard)
            self._places.append((self._file.seek(0, os.SEEK_END), len(data)))
            self._file.write(data)
            self._firsts.append(self._firsts[-1] + len(shard))
            yield shard

    def shards(self) -> Iterator[tuple[int, Shard]]:
        """Each with the number of its first document."""
        for place, first in enumerate(self._firsts[:-1]):
            yield first, self._read(place)

    def some(self, numbers: Sequence[int]) -> Iterator[Shard]:
        """The documents of these ascending numbers, a list for each shard that has any."""
        borders = [bisect_left(numbers, first) for first in self._firsts]
        for place, first in enumerate(self._firsts[:-1]):
            here = numbers[borders[place] : borders[place + 1]]
            if here:
                shard = self._read(place)
                yield [shard[number - first] for number in here]

    def _read(self, place: int) -> Shard:
        start, length = self._places[place]
        self._file.seek(start)
        return unpack(self._file.read(length))
