"""Rules that drop a document, each under its own name with the paper it is from. Words here are what white
space separates.

A limit that is not set is not checked. The limits of Gopher are those of Rae et al. 2021 (arXiv:2112.11446),
section A.1.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from treadle.core.errors import UserError
from treadle.text.accounting import Dropped
from treadle.text.document import Document
from treadle.text.transform import Piece, declare


class Measures:
    """What the rules look at, each computed when it is first asked for."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._words: list[str] | None = None
        self._lines: list[str] | None = None

    @property
    def words(self) -> list[str]:
        """Words as white space separates them."""
        if self._words is None:
            self._words = self.text.split()
        return self._words

    @property
    def lines(self) -> list[str]:
        """Lines that hold something, without the space around them."""
        if self._lines is None:
            self._lines = [line for line in map(str.strip, self.text.split("\n")) if line]
        return self._lines

    def characters(self) -> float:
        """Unicode code points."""
        return len(self.text)

    def word_count(self) -> float:
        """Number of words."""
        return len(self.words)

    def mean_word_length(self) -> float:
        """Characters in words by words; 0 for a text without any."""
        return sum(map(len, self.words)) / len(self.words) if self.words else 0.0

    def letter_words(self) -> float:
        """Share of words with at least one letter."""
        return _share(sum(1 for word in self.words if any(map(str.isalpha, word))), len(self.words))

    def symbols(self) -> float:
        """Number signs and ellipses by words."""
        count = self.text.count("#") + self.text.count("...") + self.text.count("…")
        return _share(count, len(self.words))

    def stop_words(self) -> float:
        """How many of Gopher's eight English stop words occur."""
        return len(_STOP_WORDS.intersection(word.lower() for word in self.words))

    def bullet_lines(self) -> float:
        """Share of lines that start with a bullet."""
        return _share(sum(1 for line in self.lines if line[0] in _BULLETS), len(self.lines))

    def ellipsis_lines(self) -> float:
        """Share of lines that end with an ellipsis."""
        return _share(sum(1 for line in self.lines if line.endswith(("...", "…"))), len(self.lines))

    def duplicate_lines(self) -> float:
        """Share of lines that repeat an earlier one."""
        return _share(len(self.lines) - len(set(self.lines)), len(self.lines))


@dataclass(frozen=True, slots=True)
class Rule:
    """A setting, what it measures, on which side of the limit a text falls, and who published it."""

    setting: str
    measure: Callable[[Measures], float]
    noun: str
    source: str

    def reason(self, measures: Measures, limit: float) -> str | None:
        """Why the text falls, or None."""
        value = self.measure(measures)
        if self.setting.startswith("min_"):
            return f"{value:.4g} {self.noun}, fewer than {limit:.4g}" if value < limit else None
        return f"{value:.4g} {self.noun}, more than {limit:.4g}" if value > limit else None


_STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_BULLETS = "\u2022-*\u2023\u2043"
_GOPHER_QUALITY = "Gopher, quality (Rae et al. 2021, A.1.1)"
_GOPHER_REPETITION = "Gopher, repetition (Rae et al. 2021, table A1)"
_OWN = "the project's own limit"

RULES: tuple[Rule, ...] = (
    Rule("min_chars", Measures.characters, "characters", _OWN),
    Rule("max_chars", Measures.characters, "characters", _OWN),
    Rule("min_words", Measures.word_count, "words", _GOPHER_QUALITY + ": 50"),
    Rule("max_words", Measures.word_count, "words", _GOPHER_QUALITY + ": 100,000"),
    Rule("min_mean_word_length", Measures.mean_word_length, "characters a word", _GOPHER_QUALITY + ": 3"),
    Rule("max_mean_word_length", Measures.mean_word_length, "characters a word", _GOPHER_QUALITY + ": 10"),
    Rule("min_letter_words", Measures.letter_words, "of the words with a letter", _GOPHER_QUALITY + ": 0.8"),
    Rule("max_symbols", Measures.symbols, "symbols a word", _GOPHER_QUALITY + ": 0.1"),
    Rule("min_stop_words", Measures.stop_words, "stop words", _GOPHER_QUALITY + ": 2"),
    Rule("max_bullet_lines", Measures.bullet_lines, "of the lines bullets", _GOPHER_QUALITY + ": 0.9"),
    Rule("max_ellipsis_lines", Measures.ellipsis_lines, "of the lines cut off", _GOPHER_QUALITY + ": 0.3"),
    Rule("max_duplicate_lines", Measures.duplicate_lines, "of the lines repeated", _GOPHER_REPETITION + ": 0.3"),
)


@declare(version=1)
class Filter:
    """Drops what lies beyond a limit. The first rule that a text breaks names the drop:
    ``filter.min_chars``.
    """

    def __init__(
        self,
        *,
        min_chars: int | None = None,
        max_chars: int | None = None,
        min_words: int | None = None,
        max_words: int | None = None,
        min_mean_word_length: float | None = None,
        max_mean_word_length: float | None = None,
        min_letter_words: float | None = None,
        max_symbols: float | None = None,
        min_stop_words: int | None = None,
        max_bullet_lines: float | None = None,
        max_ellipsis_lines: float | None = None,
        max_duplicate_lines: float | None = None,
    ) -> None:
        given = locals()
        self._limits: list[tuple[Rule, float]] = [
            (rule, given[rule.setting]) for rule in RULES if given[rule.setting] is not None
        ]
        if not self._limits:
            raise UserError("filter sets no limit; for example `filter: {min_chars: 20, max_chars: 4000}`")
        for low, high in ((min_chars, max_chars), (min_words, max_words), (min_mean_word_length, max_mean_word_length)):
            if low is not None and high is not None and low > high:
                raise UserError(f"filter would drop everything: its least is {low} and its most {high}")

    def __call__(self, documents: Sequence[Document]) -> Iterator[Piece]:
        """Each document, or why it is dropped."""
        for document in documents:
            yield self._judged(document)

    def _judged(self, document: Document) -> Piece:
        measures = Measures(document.text)
        for rule, limit in self._limits:
            reason = rule.reason(measures, limit)
            if reason is not None:
                return Dropped(document, f"filter.{rule.setting}", f"{reason} ({rule.source})")
        return document


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0
