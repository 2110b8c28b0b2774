"""Documents that wait until it is decided what becomes of them: the first in memory, the others on disk.

One file without a name, so that nothing is left of it however the process ends.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from treadle.text.arrow import pyarrow
from treadle.text.document import Document

Shard = list[Document]
_IN_MEMORY = 32_000_000  # characters of the shards that are not written


class Spill:
    """Shards in order; ``with`` closes it."""

    def __init__(self) -> None:
        """``MissingExtra`` without pyarrow."""
        pa, _ = pyarrow()
        self._codec = pa.Codec("zstd", compression_level=1)
        self._file = tempfile.TemporaryFile(prefix="treadle-")  # noqa: SIM115 (closed by `__exit__`)
        self._near: list[Shard] = []
        self._room = _IN_MEMORY
        self._places: list[tuple[int, int, int]] = []  # first byte, bytes there, and bytes of it in memory, by shard
        self._firsts = [0]  # number of the first document of each shard, and of all

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take(self, shards: Iterable[Shard]) -> Iterator[Shard]:
        """The shards as they come, each kept before it goes on."""
        for shard in shards:
            self._keep(shard)
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

    def _keep(self, shard: Shard) -> None:
        self._room -= sum(len(document.text) for document in shard)
        if self._room >= 0:
            self._near.append(shard)
            return
        plain = pickle.dumps(shard, protocol=5)
        data = self._codec.compress(plain, asbytes=True)
        self._places.append((self._file.seek(0, os.SEEK_END), len(data), len(plain)))
        self._file.write(data)

    def _read(self, place: int) -> Shard:
        if place < len(self._near):
            return self._near[place]
        start, length, plain = self._places[place - len(self._near)]
        self._file.seek(start)
        data = self._codec.decompress(self._file.read(length), decompressed_size=plain)
        shard: Shard = pickle.loads(data)  # noqa: S301 (this process wrote it)
        return shard
