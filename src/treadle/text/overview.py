"""What is counted over documents as they stream by, in memory that does not grow with them.

Every document is counted: length, source, license, origin, month. What costs more (words, runs of words, languages,
measures, the map) is taken of a sample chosen by the documents' ids, so it is the same in every order and two versions
of a corpus sample the same documents. Words are counted in masked text; those of texts about people are shown only when
several of them use the word.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from treadle.text.document import Document
from treadle.text.language import detector
from treadle.text.quality import FIELD as SCORE
from treadle.text.words import words_of

if TYPE_CHECKING:
    from treadle.text.language import Detector

SAMPLE = 12_000  # documents whose words are looked at
SAMPLE_CHARACTERS = 16_000_000
MAP_POINTS = 2_000
_LOOKED_AT = 20_000  # characters of one document
_MOST_KEYS = 250_000  # of a tally, before rare ones are given up
_FEWEST = 3  # documents that must use a word before it is shown, where texts are about people
_NGRAM_WORDS = 600_000
_EXCERPT = 170
_STEPS_PER_OCTAVE = 8
MEASURES = (
    "characters",
    "word_count",
    "mean_word_length",
    "letter_words",
    "symbols",
    "stop_words",
    "bullet_lines",
    "ellipsis_lines",
    "duplicate_lines",
    SCORE,
)


class Tally:
    """Counts of names; rare ones are given up when there are too many (Manku and Motwani 2002), and it says so."""

    def __init__(self, most: int = _MOST_KEYS) -> None:
        self.counts: Counter[str] = Counter()
        self.given_up = 0  # counts that were let go
        self._most = most

    def add(self, names: Iterable[str]) -> None:
        """Count each of them once more."""
        self.counts.update(names)
        if len(self.counts) > self._most:
            least = 1
            while len(self.counts) > self._most // 2:
                kept = {name: n for name, n in self.counts.items() if n > least}
                self.given_up += self.counts.total() - sum(kept.values())
                self.counts, least = Counter(kept), least * 2


class Lengths:
    """A histogram on a scale that doubles every ``_STEPS_PER_OCTAVE`` bins; quantiles are right to within 9 %."""

    def __init__(self) -> None:
        self.bins: Counter[int] = Counter()
        self.count = self.total = self.longest = 0

    def add(self, length: int) -> None:
        """One more."""
        self.bins[round(math.log2(length + 1) * _STEPS_PER_OCTAVE)] += 1
        self.count += 1
        self.total += length
        self.longest = max(self.longest, length)

    def quantile(self, share: float) -> float:
        """The length that this share of them does not exceed."""
        passed = 0
        for place in sorted(self.bins):
            passed += self.bins[place]
            if passed >= share * self.count:
                return min(float(self.longest), self.at(place))
        return 0.0

    @staticmethod
    def at(place: int) -> float:
        """The middle of a bin."""
        return float(2 ** (place / _STEPS_PER_OCTAVE) - 1)


class Point(NamedTuple):
    """A document on the map: masked ``excerpt`` (empty when about a person), and the words it is placed by."""

    document: str
    source: str
    locator: str
    excerpt: str
    words: tuple[str, ...]
    language: str


@dataclass(slots=True)
class Overview:
    """The counts. Of ``sampled`` documents there are words, n-grams, languages, measures and points."""

    documents: int = 0
    about_people: int = 0
    lengths: Lengths = field(default_factory=Lengths)
    sources: Tally = field(default_factory=Tally)
    licenses: Tally = field(default_factory=Tally)
    origins: Tally = field(default_factory=Tally)
    months: Tally = field(default_factory=Tally)
    sampled: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    language_missing: str = ""
    words: Tally = field(default_factory=Tally)
    word_documents: Tally = field(default_factory=Tally)
    pairs: Tally = field(default_factory=Tally)
    triples: Tally = field(default_factory=Tally)
    growth: list[tuple[int, int]] = field(default_factory=list)  # words seen, different ones among them
    measures: list[tuple[float, ...]] = field(default_factory=list)  # not-a-number where there is no score
    points: list[Point] = field(default_factory=list)

    def shown(self, tally: Tally, most: int, skip: frozenset[str] = frozenset()) -> list[tuple[str, int]]:
        """The most frequent that may be shown: where texts are about people, only what several of them say."""
        fewest = _FEWEST if self.about_people else 1
        found: list[tuple[str, int]] = []
        for name, count in tally.counts.most_common():
            if count < fewest or len(found) == most:
                break
            if name not in skip and (tally is not self.words or self.word_documents.counts[name] >= fewest):
                found.append((name, count))
        return found


class Counting:
    """Adds documents to an overview. ``share``: of all documents, how many are sampled; ``points``: how many mapped."""

    def __init__(self, share: float = 1.0, points: float = 1.0) -> None:
        self.overview = Overview()
        self._share, self._points = share, points
        self._language: Detector | None = None
        if share > 0:
            self._language, self.overview.language_missing = detector()
        self._next_growth, self._seen = 64, 0

    def add(self, document: Document) -> None:
        """Count one more."""
        overview = self.overview
        overview.documents += 1
        overview.about_people += document.subject is not None
        overview.lengths.add(len(document.text))
        overview.sources.add((document.source,))
        overview.licenses.add((document.license or "not recorded",))
        overview.origins.add((document.origin,))
        if document.time and re.match(r"\d{4}-\d{2}", document.time):
            overview.months.add((document.time[:7],))
        chance = _chance(document.id)
        if chance < self._share:
            self._look(document, mapped=chance < self._points)

    def _look(self, document: Document, *, mapped: bool) -> None:
        from treadle.text.filters import Measures
        from treadle.text.personal_data import mask

        overview = self.overview
        overview.sampled += 1
        text = document.text[:_LOOKED_AT]
        language = self._language(text) if self._language is not None else ""
        if language:
            overview.languages[language] += 1
        measured = Measures(text)
        told = (float(getattr(measured, name)()) for name in MEASURES if name != SCORE)
        overview.measures.append((*told, _score(document)))
        words = words_of(mask(text))
        self._count(words)
        if mapped and len(overview.points) < MAP_POINTS:
            overview.points.append(_point(document, words, language))

    def _count(self, words: list[str]) -> None:
        overview = self.overview
        overview.words.add(words)
        overview.word_documents.add(set(words))
        seen = self._seen = self._seen + len(words)
        if seen >= self._next_growth and not overview.words.given_up:
            overview.growth.append((seen, len(overview.words.counts)))
            self._next_growth = math.ceil(seen * 1.15)
        if seen < _NGRAM_WORDS:  # how many documents a run is in: one that repeats itself does not count more
            overview.pairs.add({f"{a} {b}" for a, b in itertools.pairwise(words)})
            overview.triples.add({f"{a} {b} {c}" for a, b, c in zip(words, words[1:], words[2:], strict=False)})


class Expected(NamedTuple):
    """About how much will come."""

    documents: int
    characters: int


def overview_of(
    batches: Iterable[Sequence[Document]], *, expected: Expected | None = None, look: bool = True
) -> Overview:
    """The overview of all documents. ``expected`` spreads the sample over all of them; without, everything is looked
    at, and without ``look`` nothing."""
    documents, characters = expected or (0, 0)
    share = min(1.0, SAMPLE / documents) if documents else float(look)
    if characters:
        share = min(share, SAMPLE_CHARACTERS / characters)
    counting = Counting(share, min(share, MAP_POINTS / documents) if documents else share)
    for batch in batches:
        for document in batch:
            counting.add(document)
    overview = counting.overview
    seen = overview.words.counts.total()
    if not overview.words.given_up and seen and (not overview.growth or overview.growth[-1][0] < seen):
        overview.growth.append((seen, len(overview.words.counts)))
    return overview


def _point(document: Document, words: list[str], language: str) -> Point:
    from treadle.text.personal_data import excerpt, mask

    shown = "" if document.subject else " ".join(excerpt(document.text, _EXCERPT).split())
    return Point(document.id, document.source, mask(document.locator)[:80], shown, tuple(words[:400]), language)


def _score(document: Document) -> float:
    said = document.fields.get(SCORE)
    return float(said) if isinstance(said, int | float) and not isinstance(said, bool) else math.nan


def _chance(identifier: str) -> float:
    """A number in [0, 1) that is the document's own."""
    return int.from_bytes(blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=7).digest(), "big") / 2**56
