"""What earlier corpora have already: dropped from a later one, exact or nearly so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from treadle.text.accounting import Twin
from treadle.text.corpus import read_documents
from treadle.text.deduplicate import key_of
from treadle.text.document import Document
from treadle.text.transform import Piece, Verdict

if TYPE_CHECKING:
    from treadle.text.candidates import Sketch
    from treadle.text.deduplicate_near import DeduplicateNear, Shingled

EXACT, NEAR = "earlier.exact", "earlier.near"


class Look(NamedTuple):
    """What is remembered of a shard."""

    keys: list[bytes]
    sketch: Sketch | None


@dataclass(frozen=True)
class Earlier:
    """A transform that holds the folders of earlier corpora. ``near`` is the similarity of near duplicates; None for
    exact ones only."""

    folders: tuple[Path, ...]
    near: float | None
    name: str = "earlier"
    ordered: bool = False
    whole: bool = True

    def start(self) -> Callable[[Sequence[Document]], Iterable[Piece]]:
        """Itself: it decides and is not called."""
        return self  # type: ignore[return-value]

    def look(self, documents: Sequence[Document]) -> Look:
        """Names of the texts, and their sketch."""
        keys = [key_of(document) for document in documents]
        return Look(keys, self._likeness.look(documents) if self.near is not None else None)

    def look_again(self, documents: Sequence[Document]) -> Shingled:
        """Shingles of candidates."""
        return self._likeness.look_again(documents)

    def decide(
        self, looks: Iterable[Look], again: Callable[[Sequence[int]], Iterable[Shingled]]
    ) -> Mapping[int, Verdict]:
        """Every document that an earlier corpus has; the first that is the same, or the one most like it, is named."""
        known: dict[bytes, tuple[str, str]] = {}
        sketches: list[Sketch] = []
        for batch in self._documents():
            look = self.look(batch)
            for key, document in zip(look.keys, batch, strict=True):
                known.setdefault(key, (document.id, document.locator))
            sketches += [look.sketch] if look.sketch is not None else []
        verdicts: dict[int, Verdict] = {}
        ours: list[Sketch] = []
        number = 0
        for look in looks:
            for key in look.keys:
                if key in known:
                    name, locator = known[key]
                    reason = f"the same text as {name}, which an earlier version has"
                    verdicts[number] = Verdict(EXACT, reason, Twin(name, locator))
                number += 1
            ours += [look.sketch] if look.sketch is not None else []
        if sketches and ours:
            verdicts |= self._near(sketches, ours, again, verdicts)
        return verdicts

    def _near(
        self,
        theirs: Sequence[Sketch],
        ours: Sequence[Sketch],
        again: Callable[[Sequence[int]], Iterable[Shingled]],
        gone: Mapping[int, Verdict],
    ) -> dict[int, Verdict]:
        from treadle.text.candidates import pairs_between
        from treadle.text.deduplicate_near import Sets

        pairs = [(new, old) for new, old in pairs_between(theirs, ours).tolist() if new not in gone]
        numbers, places = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
        best: dict[int, Verdict] = {}
        with Sets() as sets, Sets() as known:
            sets.take(numbers, again(numbers))
            known.take(places, map(self.look_again, self._some(places)))
            for new, old in pairs:
                similarity = self._likeness.similarity(sets, new, known, old)
                twin = best[new].twin if new in best else None
                if similarity is not None and (twin is None or similarity > twin.similarity):
                    name, locator, _ = known.names[old]
                    reason = f"{similarity:.3f} of its runs of words are those of {name}, which an earlier version has"
                    best[new] = Verdict(NEAR, reason, Twin(name, locator, similarity))
        return best

    @property
    def _likeness(self) -> DeduplicateNear:
        from treadle.text.deduplicate_near import DeduplicateNear

        return DeduplicateNear(threshold=self.near or 1)

    def _documents(self) -> Iterator[list[Document]]:
        for folder in self.folders:
            yield from read_documents(folder)

    def _some(self, numbers: Sequence[int]) -> Iterator[list[Document]]:
        wanted, first = set(numbers), 0
        for batch in self._documents():
            yield [document for number, document in enumerate(batch, start=first) if number in wanted]
            first += len(batch)
