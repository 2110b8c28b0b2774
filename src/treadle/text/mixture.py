"""Shares of a mixture: so much of each source, or of each value of a field, and the rest left out.

Weights as in GPT-3's mixture of data sets (Brown et al. 2020, arXiv:2005.14165, table 2.2), but no document is taken
twice: the value with the least for its weight is taken whole, and the others to match.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from blake3 import blake3

from treadle.core.errors import UserError
from treadle.text.document import Document
from treadle.text.transform import Verdict, declare

_SOURCE = "mixture weights as in GPT-3 (Brown et al. 2020, table 2.2)"
_MOST_VALUES = 1000


class Piece(NamedTuple):
    """What is remembered of a document: its value (None without one), its size and its place in a random order."""

    value: str | None
    size: int
    rank: bytes


@declare(version=1, whole=True)
class Mixture:
    """Keeps of every value of ``by`` (``source``, or a field's name) a share in proportion to its weight, counted in
    ``documents``, ``words`` or ``characters``. Which documents stay depends on their ids and ``seed`` alone.
    """

    def __init__(
        self,
        *,
        weights: dict[str, float],
        by: str = "source",
        count: Literal["documents", "words", "characters"] = "words",
        seed: int = 0,
    ) -> None:
        wrong = [name for name, weight in weights.items() if not 0 < weight < float("inf")]
        if wrong or not weights or len(weights) > _MOST_VALUES:
            told = f"the weight of {wrong[0]!r} is {weights[wrong[0]]}" if wrong else f"{len(weights)} weights"
            raise UserError(
                f"mixture: {told}; expected 1 to {_MOST_VALUES:,} weights above 0, as in"
                " `mixture: {weights: {wiki: 0.7, books: 0.3}}`"
            )
        total = sum(weights.values())
        self._weights = {name: weight / total for name, weight in weights.items()}
        self._by, self._count, self._seed = by, count, seed.to_bytes(16, "big", signed=True)

    def look(self, documents: Sequence[Document]) -> list[Piece]:
        """Value, size and rank of each."""
        return [Piece(self._value(each), self._size(each), self._rank(each)) for each in documents]

    def look_again(self, documents: Sequence[Document]) -> None:
        """Nothing: one look is enough."""

    def decide(
        self, looks: Iterable[list[Piece]], again: Callable[[Sequence[int]], Iterable[Any]]
    ) -> Mapping[int, Verdict]:
        """The documents beyond their value's share, and those of a value without a weight. ``UserError`` when a value
        that has a weight has nothing."""
        verdicts: dict[int, Verdict] = {}
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
        whole = min(sizes[value] / weight for value, weight in self._weights.items())
        for value, weight in self._weights.items():
            share = f"{weight:.3g} of {whole:.0f} {self._count} ({_SOURCE})"
            for number in _beyond(places[value], weight * whole):
                verdicts[number] = Verdict("mixture.left_out", f"{self._by} {value!r} has its share: {share}")
        return verdicts

    def _value(self, document: Document) -> str | None:
        value = document.source if self._by == "source" else document.fields.get(self._by)
        return value if isinstance(value, str) else None if value is None else str(value)

    def _size(self, document: Document) -> int:
        if self._count == "documents":
            return 1
        return len(document.text.split()) if self._count == "words" else len(document.text)

    def _rank(self, document: Document) -> bytes:
        return blake3(self._seed + document.id.encode()).digest(16)


def _beyond(places: list[tuple[bytes, int, int]], target: float) -> list[int]:
    """The numbers of documents that come, by rank, when the target is reached; the last one kept comes nearest."""
    taken = 0
    gone: list[int] = []
    for _, number, size in sorted(places):
        if taken + size / 2 <= target + 1e-6 and not gone:
            taken += size
        else:
            gone.append(number)
    return gone
