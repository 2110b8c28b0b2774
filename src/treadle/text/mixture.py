"""Shares of a mixture: so much of each source, or of each value of a field, the rest left out, and what is short of its
share read several times.

Weights as in GPT-3's mixture of data sets (Brown et al. 2020, arXiv:2005.14165, table 2.2). A document stays one
document however often it is to be read: the field ``mixture_repeats`` says how often, and whoever packs text to learn
from reads it that often. So what something was made from stays a set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from blake3 import blake3

from treadle.core.errors import UserError
from treadle.text.document import Document
from treadle.text.transform import Marked, Verdict, declare

_SOURCE = "mixture weights as in GPT-3 (Brown et al. 2020, table 2.2)"
_MOST_VALUES = 1000
_MOST_REPEATS = 100
REPEATS = "mixture_repeats"  # the field; absent where it is 1
REPEATED = "mixture.repeated"


class Piece(NamedTuple):
    """What is remembered of a document: its value (None without one), its size and its place in a random order."""

    value: str | None
    size: int
    rank: bytes


@declare(version=1, whole=True)
class Mixture:
    """Keeps of every value of ``by`` (``source``, or a field's name) a share in proportion to its weight, counted in
    ``documents``, ``words`` or ``characters``. Which documents stay depends on their ids and ``seed`` alone. With
    ``repeat`` above 1, what is short of its share is to be read up to that many times before anything is left out.
    """

    def __init__(
        self,
        *,
        weights: dict[str, float],
        by: str = "source",
        count: Literal["documents", "words", "characters"] = "words",
        seed: int = 0,
        repeat: int = 1,
    ) -> None:
        wrong = [name for name, weight in weights.items() if not 0 < weight < float("inf")]
        if wrong or not weights or len(weights) > _MOST_VALUES:
            told = f"the weight of {wrong[0]!r} is {weights[wrong[0]]}" if wrong else f"{len(weights)} weights"
            raise UserError(
                f"mixture: {told}; expected 1 to {_MOST_VALUES:,} weights above 0, as in"
                " `mixture: {weights: {wiki: 0.7, books: 0.3}}`"
            )
        if not 1 <= repeat <= _MOST_REPEATS:
            raise UserError(f"mixture: repeat is {repeat}; expected 1 to {_MOST_REPEATS}")
        total = sum(weights.values())
        self._weights = {name: weight / total for name, weight in weights.items()}
        self._by, self._count, self._seed = by, count, seed.to_bytes(16, "big", signed=True)
        self._repeat = repeat

    def look(self, documents: Sequence[Document]) -> list[Piece]:
        """Value, size and rank of each."""
        return [Piece(self._value(each), self._size(each), self._rank(each)) for each in documents]

    def look_again(self, documents: Sequence[Document]) -> None:
        """Nothing: one look is enough."""

    def decide(
        self, looks: Iterable[list[Piece]], again: Callable[[Sequence[int]], Iterable[Any]]
    ) -> Mapping[int, Verdict | Marked]:
        """The documents beyond their value's share, those to be read several times, and those of a value without a
        weight. ``UserError`` when a value that has a weight has nothing."""
        verdicts: dict[int, Verdict | Marked] = {}
        places: dict[str, list[tuple[bytes, int, int]]] = defaultdict(list)
        for number, piece in enumerate(piece for look in looks for piece in look):
            if piece.value in self._weights:
                places[piece.value].append((piece.rank, number, piece.size))
            else:
                told = f"no {self._by}" if piece.value is None else f"{self._by} {piece.value[:100]!r}"
                verdicts[number] = Verdict("mixture.no_weight", f"{told} has no weight ({_SOURCE})")
        sizes = {value: sum(size for _, _, size in places[value]) for value in self._weights}
        empty = next((value for value, size in sizes.items() if not size), None)
        if empty is not None:
            seen = ", ".join(sorted(value for value, size in sizes.items() if size)) or "none"
            raise UserError(f"mixture: no {self._count} of {self._by} {empty!r} are left; of those weighted: {seen}")
        whole = self._whole(sizes)
        repeats = [Marked(REPEATED, {REPEATS: times}) for times in range(self._repeat + 1)]
        for value, weight in self._weights.items():
            share = f"{weight:.3g} of {whole:.0f} {self._count} ({_SOURCE})"
            left_out = Verdict("mixture.left_out", f"{self._by} {value!r} has its share: {share}")
            for number, often in _times(places[value], weight * whole, sizes[value]):
                times = min(often, self._repeat)
                if times != 1:
                    verdicts[number] = repeats[times] if times else left_out
        return verdicts

    def _whole(self, sizes: Mapping[str, int]) -> float:
        """How much there will be of all: as much as leaves nothing out, or as what is shortest allows."""
        most = max(sizes[value] / weight for value, weight in self._weights.items())
        return min(most, *(self._repeat * sizes[value] / weight for value, weight in self._weights.items()))

    def _value(self, document: Document) -> str | None:
        value = document.source if self._by == "source" else document.fields.get(self._by)
        return value if isinstance(value, str) else None if value is None else str(value)

    def _size(self, document: Document) -> int:
        if self._count == "documents":
            return 1
        return len(document.text.split()) if self._count == "words" else len(document.text)

    def _rank(self, document: Document) -> bytes:
        return blake3(self._seed + document.id.encode()).digest(16)


def _times(places: list[tuple[bytes, int, int]], target: float, size: int) -> Iterator[tuple[int, int]]:
    """How often each document is taken so that their sizes come to the target, by number. All are taken as often as
    they go in whole; of the rest each once more, by rank, and the last one comes nearest."""
    often = int((target + 1e-6) // size)
    rest, taken = target - often * size, 0
    full = often > 0 and rest <= 1e-6  # a text without words would fit even there
    for _, number, own in sorted(places):
        full = full or taken + own / 2 > rest + 1e-6
        taken += 0 if full else own
        yield number, often + (not full)


def repeats_of(document: Document) -> int:
    """How often a document is to be read by whoever learns from it."""
    times = document.fields.get(REPEATS, 1)
    return times if type(times) is int and 1 <= times <= _MOST_REPEATS else 1
