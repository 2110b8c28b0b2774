"""Which training examples an answer is like: ranked by words, shown by the words they share, or nothing when
nothing is close.

Likeness, never cause: a model may have learned an answer from texts that look nothing like it. What is
compared with is what the model was given, the training examples, and what is told is the longest run of words
that answer and example share, weighed by how rare its words are.

Whether that run is close enough is not a matter of taste. When the index is built, examples of one group are
compared with the examples of all other groups; ``threshold`` is what such strangers reach in ``false_close``
of the cases. So an answer about something the model was never taught is called close in about that share of
cases. An example that the question names outright (``json.dumps``) has half the threshold, since few examples
can be named.

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
from treadle.text.words import located_words, run_hashes, word_numbers, words_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
INDEX_FILE = "similarity.json"
ENTRIES_FILE = "entries.json"
RUN = 3  # words; two rare words in a row are too often a name that both texts must use
# Robertson and Zaragoza 2009, the usual middle of the ranges they recommend.
_K1, _B = 1.2, 0.75
_NAME_WEIGHT = 3  # a document's name counts as if it stood this often in its text
_CALIBRATION_SAMPLE = 400
_MAX_ANSWER_WORDS = 4_096
_MAX_QUESTION_WORDS = 4_096
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
    arrays = {**_term_arrays(entries, known), **_run_arrays(told)}
    arrays["word_weights"] = _word_weights(arrays["words"], arrays["starts"], len(entries))
    names = [{"document": entry.document, "locator": entry.locator, "group": entry.group} for entry in entries]
    index = SimilarityIndex(names, arrays, threshold=math.inf)
    index = SimilarityIndex(names, arrays, threshold=index.stranger_quantile(false_close))
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    (folder / ENTRIES_FILE).write_bytes(canonical_json(names))
    about = {"format": FORMAT, "entries": len(entries), "threshold": index.threshold, "false_close": false_close}
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
        return SimilarityIndex(names, arrays, threshold=float(about["threshold"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{folder} is not a similarity index: {error}") from None


class SimilarityIndex:
    """Answers ``closest``; immutable, safe to share between threads."""

    def __init__(self, names: list[dict[str, str]], arrays: dict[str, NDArray[Any]], *, threshold: float) -> None:
        self.threshold = threshold
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
        named = self._named(question)
        spans = self._spans(answer)
        close = [
            entry
            for entry, (rarity, _, _) in spans.items()
            if rarity >= (self.threshold / 2 if entry in named else self.threshold)
        ]
        if not close:
            return []
        ranking = self.rank(f"{question}\n{answer}")
        located = located_words(answer)
        found = []
        for entry in sorted(close, key=lambda place: (-ranking[place], place)):
            rarity, first, count = spans[entry]
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
                )
            )
            if len(found) == limit:
                break
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

        Infinite (nothing is ever called close) when there are fewer than two groups to compare.
        """
        groups = np.array([name["group"] or name["document"] for name in self._names])
        if len(set(groups.tolist())) < 2:
            return math.inf
        step = max(1, len(self._names) // _CALIBRATION_SAMPLE)
        starts, words = self._arrays["starts"], self._arrays["words"]
        reached = []
        for place in range(0, len(self._names), step):
            numbers = np.asarray(words[starts[place] : starts[place + 1]])
            spans = self._spans_of(numbers)
            strangers = [rarity for entry, (rarity, _, _) in spans.items() if groups[entry] != groups[place]]
            reached.append(max(strangers, default=0.0))
        return float(np.quantile(reached, 1 - false_close, method="higher"))

    def _named(self, question: str) -> set[int]:
        """Entries whose whole name the question says; a bare common word (``copy``) is no name."""
        said = {word.strip(".").casefold() for word in re.findall(r"[\w.]+", question[:20_000])}
        return {place for name in said if "." in name for place in self._by_name.get(name, ())}

    def _spans(self, answer: str) -> dict[int, tuple[float, int, int]]:
        return self._spans_of(word_numbers(words_of(answer)[:_MAX_ANSWER_WORDS], {}))

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


def _term_arrays(entries: Sequence[Entry], known: dict[str, int]) -> dict[str, NDArray[Any]]:
    """BM25's postings with the weight of every (term, entry) worked out: a query only adds them up."""
    lines = [
        words_of(entry.question) + words_of(entry.answer) + words_of(entry.locator) * _NAME_WEIGHT for entry in entries
    ]
    lengths = np.array([len(line) for line in lines], dtype=np.float64)
    terms = word_numbers([word for line in lines for word in line], known)
    owner = np.repeat(np.arange(len(lines)), lengths.astype(np.int64))
    order = np.lexsort((owner, terms))
    terms, owner = terms[order], owner[order]
    fresh = np.ones(len(terms), dtype=bool)
    fresh[1:] = (np.diff(terms) != 0) | (np.diff(owner) != 0)
    at = np.flatnonzero(fresh)
    frequency = np.diff(np.concatenate((at, [len(terms)])))
    terms, owner = terms[at], owner[at]
    unique, first, within = np.unique(terms, return_index=True, return_counts=True)
    rarity = np.repeat(np.log1p((len(entries) - within + 0.5) / (within + 0.5)), within)
    norm = _K1 * (1 - _B + _B * lengths[owner] / max(float(lengths.mean()) if len(lengths) else 1.0, 1.0))
    return {
        "terms": unique,
        "term_offsets": np.concatenate((first, [len(terms)])).astype(np.int64),
        "postings": owner.astype(np.int32),
        "weights": (rarity * frequency * (_K1 + 1) / (frequency + norm)).astype(np.float32),
    }


def _run_arrays(told: Sequence[NDArray[np.uint64]]) -> dict[str, NDArray[Any]]:
    """All entries' words in one line, and every run of ``RUN`` words in it that does not cross two entries."""
    words = np.concatenate([*told, np.empty(0, dtype=np.uint64)])
    lengths = np.array([len(numbers) for numbers in told], dtype=np.int64)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    owner = np.repeat(np.arange(len(told)), lengths)
    hashes = run_hashes(words, RUN)
    places = np.flatnonzero(owner[: len(hashes)] == owner[RUN - 1 :][: len(hashes)])
    order = np.argsort(hashes[places], kind="stable")
    return {
        "words": words,
        "starts": starts,
        "runs": hashes[places][order],
        "run_places": places[order].astype(np.int64),
    }


def _word_weights(words: NDArray[np.uint64], starts: NDArray[np.int64], entries: int) -> NDArray[Any]:
    """Inverse document frequency (nats) of each word of the answers, sorted by word."""
    owner = np.repeat(np.arange(entries), np.diff(starts))
    order = np.lexsort((owner, words))
    first = np.ones(len(words), dtype=bool)  # of the places where an entry has a word
    first[1:] = (np.diff(words[order]) != 0) | (np.diff(owner[order]) != 0)
    unique, count = np.unique(words[order][first], return_counts=True)
    table = np.empty(len(unique), dtype=[("word", np.uint64), ("weight", np.float64)])
    table["word"], table["weight"] = unique, np.log(entries / count)
    return table
