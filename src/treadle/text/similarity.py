"""Which training examples an answer is like: ranked by words, shown by the words they share, or nothing when
nothing is close.

Likeness, never cause: a model may have learned an answer from texts that look nothing like it. What is
compared with is what the model was given, the training examples, and what is told is the longest run of words
that answer and example share, weighed by how rare its words are.

Whether that run is close enough is not a matter of taste. When the index is built, examples of one group are compared
with those of all other groups; ``threshold`` is what the best of such strangers reaches in ``false_close`` of the
cases. So an answer about something the model was never taught is called close in about that share of cases.

An example that the question names outright (``json.dumps``) is one and not the best of thousands, so less shows
likeness: a shared run of ``RUN`` words, or shared words in any order that together are rarer than one given stranger
reaches in ``FALSE_NAMED`` of the cases. Words that the question itself says do not count for that.

The index is a folder of numpy arrays and holds no text: words and runs of words are there as 64-bit numbers,
and the quoted words are taken from the answer. It covers the languages that write spaces between words.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt
from treadle.text.dataset import Example
from treadle.text.postings import RUN, run_arrays, term_arrays, word_weights
from treadle.text.words import Word, located_words, run_hashes, word_numbers, words_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
INDEX_FILE = "similarity.json"
ENTRIES_FILE = "entries.json"
FALSE_NAMED = 0.01
_NAME_WEIGHT = 3  # a document's name counts as if it stood this often in its text
_CALIBRATION_SAMPLE = 400
_CALIBRATION_PAIRS = 2_000
_MAX_ANSWER_WORDS = 4_096
_MAX_QUESTION_WORDS = 4_096
_MAX_QUESTION_CHARACTERS = 20_000
_ARRAYS = ("terms", "term_offsets", "postings", "weights", "words", "word_weights", "starts", "runs", "run_places")


@dataclass(frozen=True, slots=True)
class Entry:
    """One training example as the index sees it."""

    document: str
    locator: str
    question: str
    answer: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Likeness:
    """A training example that an answer is close to.

    ``words`` in a row are the same in both (case and punctuation aside), quoted from the answer as ``span``,
    which begins at character ``start``. ``rarity`` is the sum of their inverse document frequencies in nats,
    ``score`` the BM25 rank's. ``named``: the question names this document.
    """

    document: str
    locator: str
    words: int
    span: str
    start: int
    rarity: float
    score: float
    named: bool
    shared: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


def entries_from(examples: Iterable[Example]) -> list[Entry]:
    """One entry for each document of each example; the name is ``fields["locator"]`` where the example has
    one.
    """
    entries: list[Entry] = []
    for example in examples:
        told = example.answer if example.messages else example.text
        asked = example.question if example.messages else ""
        for document in example.documents:
            locator = str(example.fields.get("locator") or document)
            entries.append(Entry(document, locator, asked, told, example.group))
    return entries


def build_index(folder: Path, entries: Sequence[Entry], *, false_close: float = 0.05) -> SimilarityIndex:
    """Write the index of ``entries`` into ``folder`` and open it.

    ``false_close`` is the share of strangers that may be called close; see above.
    """
    known: dict[str, int] = {}
    told = [word_numbers(words_of(entry.answer), known) for entry in entries]
    lines = [
        words_of(entry.question) + words_of(entry.answer) + words_of(entry.locator) * _NAME_WEIGHT for entry in entries
    ]
    arrays = {**term_arrays(lines, known), **run_arrays(told)}
    arrays["word_weights"] = word_weights(arrays["words"], arrays["starts"], len(entries))
    names = [{"document": entry.document, "locator": entry.locator, "group": entry.group} for entry in entries]
    plain = SimilarityIndex(names, arrays, threshold=math.inf, named_threshold=math.inf)
    threshold, named = plain.stranger_quantile(false_close), plain.pair_quantile(FALSE_NAMED)
    index = SimilarityIndex(names, arrays, threshold=threshold, named_threshold=named)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    (folder / ENTRIES_FILE).write_bytes(canonical_json(names))
    about = {
        "format": FORMAT,
        "entries": len(entries),
        "threshold": threshold if math.isfinite(threshold) else None,
        "named_threshold": named if math.isfinite(named) else None,
        "false_close": false_close,
    }
    (folder / INDEX_FILE).write_bytes(canonical_json(about))
    return index


def open_index(folder: Path) -> SimilarityIndex:
    """The index in a folder, memory-mapped; ``Corrupt`` when it is none or of another format."""
    try:
        about = json.loads((folder / INDEX_FILE).read_bytes())
        if about["format"] != FORMAT:
            raise Corrupt(f"{folder} is a similarity index of format {about['format']}; this Treadle reads {FORMAT}")
        names = json.loads((folder / ENTRIES_FILE).read_bytes())
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
        limits = [math.inf if about[key] is None else float(about[key]) for key in ("threshold", "named_threshold")]
        return SimilarityIndex(names, arrays, threshold=limits[0], named_threshold=limits[1])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{folder} is not a similarity index: {error}") from None


class SimilarityIndex:
    """Answers ``closest``; immutable, safe to share between threads."""

    def __init__(
        self, names: list[dict[str, str]], arrays: dict[str, NDArray[Any]], *, threshold: float, named_threshold: float
    ) -> None:
        self.threshold = threshold
        self.named_threshold = named_threshold
        self._names = names
        self._arrays = arrays
        self._by_name: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            self._by_name.setdefault(name["locator"].casefold(), []).append(place)

    def __len__(self) -> int:
        return len(self._names)

    def closest(self, question: str, answer: str, *, limit: int = 3) -> list[Likeness]:
        """Up to ``limit`` training examples that the answer is close to, best first; empty when nothing is
        close.
        """
        located = located_words(answer)[:_MAX_ANSWER_WORDS]
        numbers = word_numbers([word.text for word in located], {})
        spans = self._spans_of(numbers)
        close = {entry: span for entry, span in spans.items() if span[0] >= self.threshold}
        shared: dict[int, tuple[str, ...]] = {}
        named = self._named(question)
        asked = _words_of_question(question) if named else set()
        for entry in named:
            common = self._shared(located, numbers, entry, asked)
            if entry in spans or sum(weight for _, weight in common) >= self.named_threshold:
                close[entry] = spans.get(entry) or self._short_span(numbers, entry)
                shared[entry] = tuple(word for word, _ in common)
        if not close:
            return []
        ranking = self.rank(f"{question}\n{answer}")
        found = []
        for entry in sorted(close, key=lambda place: (-ranking[place], place))[:limit]:
            rarity, first, count = close[entry]
            start, end = located[first].start, located[first + count - 1].end
            found.append(
                Likeness(
                    document=self._names[entry]["document"],
                    locator=self._names[entry]["locator"],
                    words=count,
                    span=answer[start:end],
                    start=start,
                    rarity=round(rarity, 3),
                    score=round(float(ranking[entry]), 3),
                    named=entry in named,
                    shared=shared.get(entry, ()),
                )
            )
        return found

    def rank(self, text: str) -> NDArray[np.float32]:
        """The BM25 score of every entry for the words of ``text``, of shape (entries,)."""
        arrays = self._arrays
        scores = np.zeros(len(self._names), dtype=np.float32)
        numbers = np.unique(word_numbers(words_of(text)[:_MAX_QUESTION_WORDS], {}))
        places = np.searchsorted(arrays["terms"], numbers)
        for place, number in zip(places.tolist(), numbers, strict=True):
            if place < len(arrays["terms"]) and arrays["terms"][place] == number:
                span = slice(int(arrays["term_offsets"][place]), int(arrays["term_offsets"][place + 1]))
                scores[arrays["postings"][span]] += arrays["weights"][span]
        return scores

    def stranger_quantile(self, false_close: float) -> float:
        """What the best run shared with another group's examples reaches in all but ``false_close`` of the
        cases.

        Infinite (nothing is ever called close) when there are fewer than two examples to compare.
        """
        if len(self._names) < 2:
            return math.inf
        groups = np.array([name["group"] or name["document"] for name in self._names])
        if len(set(groups.tolist())) < 2:  # one group, so every example is a stranger to the others
            groups = np.arange(len(self._names))
        step = max(1, len(self._names) // _CALIBRATION_SAMPLE)
        starts, words = self._arrays["starts"], self._arrays["words"]
        reached = []
        for place in range(0, len(self._names), step):
            numbers = np.asarray(words[starts[place] : starts[place + 1]])
            spans = self._spans_of(numbers)
            strangers = [rarity for entry, (rarity, _, _) in spans.items() if groups[entry] != groups[place]]
            reached.append(max(strangers, default=0.0))
        # However little strangers share: less than one word that only one example has shows nothing.
        return max(float(np.quantile(reached, 1 - false_close, method="higher")), math.log(len(self._names)))

    def pair_quantile(self, false_named: float) -> float:
        """The rarity of all words shared with one given stranger, in all but ``false_named`` of the cases."""
        count = len(self._names)
        if count < 2:
            return math.inf
        reached = []
        for place in range(0, count, max(1, count // _CALIBRATION_PAIRS)):
            other = (place * 7 + count // 2) % count  # far away in the list, and not the same for neighbors
            if self._names[other]["group"] != self._names[place]["group"] or not self._names[place]["group"]:
                common = np.intersect1d(self._words_at(place), self._words_at(other))
                reached.append(float(self._weights_of(common).sum()))
        floor = math.log(count)
        return max(float(np.quantile(reached, 1 - false_named, method="higher")), floor) if reached else floor

    def _words_at(self, entry: int) -> NDArray[np.uint64]:
        starts = self._arrays["starts"]
        return np.asarray(self._arrays["words"][starts[entry] : starts[entry + 1]])

    def _shared(
        self, located: Sequence[Word], numbers: NDArray[np.uint64], entry: int, asked: set[str]
    ) -> list[tuple[str, float]]:
        """Different words that answer and entry say and the question does not, with their weights, rarest first."""
        both = np.isin(numbers, self._words_at(entry))
        weights = self._weights_of(numbers)
        told = [(located[at].text, float(weights[at])) for at in np.flatnonzero(both).tolist()]
        found = {word: weight for word, weight in told if word not in asked}
        return sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))

    def _short_span(self, numbers: NDArray[np.uint64], entry: int) -> tuple[float, int, int]:
        """The rarest pair of words in a row that both have, or the rarest word: (rarity, first word, count)."""
        there = self._words_at(entry)
        pairs = np.isin(run_hashes(numbers, 2), run_hashes(there, 2))
        length, shared = (2, pairs) if pairs.any() else (1, np.isin(numbers, there))
        hits = np.flatnonzero(shared)
        weights = self._weights_of(numbers)
        rarity = weights[hits] if length == 1 else weights[hits] + weights[hits + 1]
        best = int(np.argmax(rarity))
        return float(rarity[best]), int(hits[best]), length

    def _named(self, question: str) -> set[int]:
        """Entries whose whole dotted name the question says; a bare common word (``copy``) is no name."""
        said = {word.strip(".").casefold() for word in re.findall(r"[\w.]+", question[:_MAX_QUESTION_CHARACTERS])}
        return {place for name in said if "." in name for place in self._by_name.get(name, ())}

    def _spans_of(self, numbers: NDArray[np.uint64]) -> dict[int, tuple[float, int, int]]:
        """By entry, its rarest shared run: (rarity in nats, first word in the answer, count of words)."""
        arrays = self._arrays
        hashes = run_hashes(numbers, RUN)
        low = np.searchsorted(arrays["runs"], hashes, side="left")
        high = np.searchsorted(arrays["runs"], hashes, side="right")
        counts = high - low
        if not counts.sum():
            return {}
        # Every place where a run of the answer stands: `here` in the answer, `there` in the line of all
        # entries' words.
        here = np.repeat(np.arange(len(hashes)), counts)
        steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        there = arrays["run_places"][np.repeat(low, counts) + steps].astype(np.int64)
        # Runs that go on in both texts lie on one diagonal, one after the other.
        order = np.lexsort((here, there - here))
        here, there = here[order], there[order]
        broken = np.flatnonzero((np.diff(there - here) != 0) | (np.diff(here) != 1)) + 1
        first = np.concatenate(([0], broken))
        length = np.diff(np.concatenate((first, [len(here)]))) + RUN - 1
        weights = np.concatenate(([0.0], np.cumsum(self._weights_of(numbers))))
        rarity = weights[here[first] + length] - weights[here[first]]
        entry = np.searchsorted(arrays["starts"], there[first], side="right") - 1
        best: dict[int, tuple[float, int, int]] = {}
        found = zip(entry.tolist(), rarity.tolist(), here[first].tolist(), length.tolist(), strict=True)
        for place, value, start, count in found:
            if place not in best or value > best[place][0]:
                best[place] = (value, start, count)
        return best

    def _weights_of(self, numbers: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Inverse document frequency of each word, 0 for one that no entry has (it is in no shared run)."""
        table = self._arrays["word_weights"]
        if not len(table):
            return np.zeros(len(numbers))
        places = np.minimum(np.searchsorted(table["word"], numbers), len(table) - 1)
        return np.where(table["word"][places] == numbers, table["weight"][places], 0.0)


def _words_of_question(question: str) -> set[str]:
    """Its words, and the parts of names in it: ``BabylMessage`` says ``message``."""
    text = question[:_MAX_QUESTION_CHARACTERS]
    return {*words_of(text), *words_of(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text))}
