"""Near duplicates: texts that share most of their runs of words. Candidates come from MinHash, and each pair is
compared exactly before anything is dropped."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from treadle.core.errors import UserError
from treadle.text.accounting import Twin
from treadle.text.candidates import Sketch, pairs_within, sketch
from treadle.text.document import Document
from treadle.text.minhash import bands_and_rows
from treadle.text.shingles import SIZE, jaccard, sets_of
from treadle.text.transform import Verdict, declare

if TYPE_CHECKING:
    from numpy.typing import NDArray

RULE = "deduplicate_near.similar"


class Shingled(NamedTuple):
    """Documents that are compared: what names each, and its set of shingles."""

    names: list[tuple[str, str, str]]  # id, locator, label
    sets: list[NDArray[np.uint64]]


@declare(version=1, whole=True)
class DeduplicateNear:
    """Drops all but the first, or the longest, of texts whose runs of ``words`` words overlap by ``threshold``."""

    def __init__(
        self, *, threshold: float = 0.8, keep: Literal["first", "longest"] = "first", words: int = SIZE
    ) -> None:
        if not 0.1 <= threshold <= 1:
            raise UserError(f"deduplicate_near: threshold is {threshold}; expected a similarity from 0.1 to 1")
        if not 1 <= words <= 50:
            raise UserError(f"deduplicate_near: words is {words}; expected a length of runs from 1 to 50")
        self.threshold, self._keep, self.words = threshold, keep, words
        self._shape = bands_and_rows(threshold)

    def look(self, documents: Sequence[Document]) -> Sketch:
        """The shard's sketch."""
        return sketch(documents, self.words, *self._shape)

    def look_again(self, documents: Sequence[Document]) -> Shingled:
        """The shingles of candidates."""
        names = [(each.id, each.locator, str(each.fields.get("label", ""))) for each in documents]
        return Shingled(names, list(sets_of([each.text for each in documents], self.words)))

    def decide(self, looks: Iterable[Any], again: Callable[[Sequence[int]], Iterable[Any]]) -> Mapping[int, Verdict]:
        """Of each cluster, those that are similar to one that stays.

        A chain of similar pairs joins the members of a cluster, so its ends need not be alike: beginning with the
        first, or longest, a member stays when nothing that stays already is similar to it. Texts that somebody
        labeled differently are no pair.
        """
        sketches = list(looks)
        if not sketches:
            return {}
        pairs = pairs_within(sketches)
        numbers = np.unique(pairs)
        with Sets() as sets:
            sets.take(numbers, again(numbers.tolist()))
            clusters = joined(pairs.tolist(), lambda one, other: self.alike(sets, one, other))
            characters = np.concatenate([each.characters for each in sketches])
            return self._verdicts(clusters, sets, characters)

    def alike(self, sets: Sets, one: int, other: int) -> bool:
        """Whether two candidates are near duplicates, exactly."""
        return self.similarity(sets, one, sets, other) is not None

    def similarity(self, sets: Sets, one: int, others: Sets, other: int) -> float | None:
        """How alike two candidates are; None where they are no near duplicates."""
        low, high = sorted((sets.size(one), others.size(other)))
        if low < self.threshold * high - 1e-9 or sets.label(one) != others.label(other):
            return None
        found = jaccard(sets[one], others[other])
        return found if found >= self.threshold - 1e-9 else None

    def _verdicts(
        self, clusters: Iterable[Sequence[int]], sets: Sets, characters: NDArray[np.int64]
    ) -> dict[int, Verdict]:
        verdicts = {}
        for members in clusters:
            ordered = members
            if self._keep == "longest":
                ordered = sorted(members, key=lambda number: (-characters[number], number))
            stays: list[int] = []
            for number in ordered:
                found = [(self.similarity(sets, number, sets, other), -other) for other in stays]
                alike = [(value, place) for value, place in found if value is not None]
                if not alike:
                    stays.append(number)
                    continue
                similarity, best = max(alike)
                verdicts[number] = verdict(RULE, sets, -best, similarity, cluster=members[0])
        return verdicts


def verdict(rule: str, sets: Sets, kept: int, similarity: float, *, cluster: int) -> Verdict:
    """Dropped in favor of ``kept``."""
    name, locator, _ = sets.names[kept]
    twin = Twin(name, locator, similarity, sets.names[cluster][0])
    return Verdict(rule, f"{similarity:.3f} of its runs of words are those of {name}", twin)


class Sets:
    """Sets of shingles by the number of their document, in a file without a name."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="treadle-")  # noqa: SIM115 (closed by `__exit__`)
        self._places: dict[int, tuple[int, int]] = {}
        self._last: tuple[int, NDArray[np.uint64]] | None = None
        self.names: dict[int, tuple[str, str, str]] = {}

    def __enter__(self) -> Sets:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def take(self, numbers: Iterable[int], looks: Iterable[Shingled]) -> None:
        """The sets of these documents, in order."""
        following = iter(numbers)
        place = self._file.tell()
        for look in looks:
            for name, members in zip(look.names, look.sets, strict=True):
                number = int(next(following))
                self.names[number] = name
                self._places[number] = (place, len(members))
                place += self._file.write(members.tobytes())

    def size(self, number: int) -> int:
        """How many members."""
        return self._places[number][1]

    def label(self, number: int) -> str:
        """What somebody said the document is."""
        return self.names[number][2]

    def __getitem__(self, number: int) -> NDArray[np.uint64]:
        if self._last is None or self._last[0] != number:
            start, count = self._places[number]
            self._file.seek(start)
            self._last = number, np.frombuffer(self._file.read(8 * count), dtype=np.uint64)
        return self._last[1]


def joined(pairs: Iterable[Sequence[int]], alike: Callable[[int, int], bool]) -> list[list[int]]:
    """The clusters that the alike among these pairs make, members ascending, by their first member. Two that are in
    one cluster already are not compared."""
    parents: dict[int, int] = {}

    def root(number: int) -> int:
        found = number
        while parents.setdefault(found, found) != found:
            found = parents[found]
        while parents[number] != found:
            parents[number], number = found, parents[number]
        return found

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        if low != high and alike(one, other):
            parents[high] = low
    clusters: dict[int, list[int]] = {}
    for number in sorted(parents):
        clusters.setdefault(root(number), []).append(number)
    return [members for members in clusters.values() if len(members) > 1]
