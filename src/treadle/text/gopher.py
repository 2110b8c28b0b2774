"""The two filters of Gopher: Rae et al. 2021 (arXiv:2112.11446), section A.1.1 and table A1.

Words, measures, limits and the order of the rules are those of datatrove 0.10 for English, so that every document
is kept or dropped as it would be there, by the rule of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from treadle.core.errors import UserError
from treadle.text.accounting import Dropped
from treadle.text.document import Document
from treadle.text.transform import Piece, declare

if TYPE_CHECKING:
    from treadle.text.english.measures import WordMeasures
    from treadle.text.english.repeats import Limits
    from treadle.text.english.strings import Places, Strings

_QUALITY = "Gopher, quality (Rae et al. 2021, A.1.1)"
_REPETITION = "Gopher, repetition (Rae et al. 2021, table A1)"
_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
_BULLETS = ("\u2022", "-")
_ELLIPSES = ("...", "\u2026")
_PARAGRAPHS = re.compile("\n{2,}")
_LINES = re.compile("\n+")
_LONGEST_RUN = 1000  # words

Finding = tuple[str, str] | None  # the name of a rule and what it found


@declare(version=1)
class GopherQuality:
    """Drops texts by the number, length and kind of their words, and by their lines; needs English. A limit of nothing
    or 0 is not checked.
    """

    def __init__(
        self,
        *,
        min_doc_words: int | None = 50,
        max_doc_words: int | None = 100_000,
        min_avg_word_length: float | None = 3,
        max_avg_word_length: float | None = 10,
        max_symbol_word_ratio: float | None = 0.1,
        max_bullet_lines_ratio: float | None = 0.9,
        max_ellipsis_lines_ratio: float | None = 0.3,
        max_non_alpha_words_ratio: float | None = 0.8,
        min_stop_words: int | None = 2,
        stop_words: list[str] | None = None,
    ) -> None:
        self._words = (min_doc_words or 0, max_doc_words or float("inf"))
        self._length = (min_avg_word_length or 0, max_avg_word_length or float("inf"))
        self._symbols = max_symbol_word_ratio or float("inf")
        self._bullets = max_bullet_lines_ratio or float("inf")
        self._ellipses = max_ellipsis_lines_ratio or float("inf")
        self._letters = max_non_alpha_words_ratio or 0
        self._stops = min_stop_words or 0
        self._stop_words = sorted(set(_STOP_WORDS if stop_words is None else stop_words))
        self._table: Strings | None = None

    def __call__(self, documents: Sequence[Document]) -> Iterator[Piece]:
        """Each document, or why it is dropped."""
        for document in documents:
            yield _judged(document, "gopher_quality", self.finding(document.text), _QUALITY)

    def finding(self, text: str) -> Finding:
        """The first rule that the text breaks."""
        from treadle.text.english.rules import strings
        from treadle.text.english.text import EnglishText

        if self._table is None:
            self._table = strings(self._stop_words)
        measures = EnglishText([text]).word_measures(self._table)
        return (
            self._of_length(measures)
            or self._of_symbols(text, measures)
            or self._of_lines(text)
            or self._of_words(measures)
        )

    def _of_length(self, measures: WordMeasures) -> Finding:
        least, most = self._words
        if measures.plain < least:
            return "gopher_short_doc", f"{measures.plain} words, fewer than {least}"
        if measures.plain > most:
            return "gopher_long_doc", f"{measures.plain} words, more than {most}"
        if not measures.plain:
            return None
        low, high = self._length
        mean = measures.plain_characters / measures.plain
        if mean < low:
            return "gopher_below_avg_threshold", f"{mean:.4g} characters a word, fewer than {low:.4g}"
        if mean > high:
            return "gopher_above_avg_threshold", f"{mean:.4g} characters a word, more than {high:.4g}"
        return None

    def _of_symbols(self, text: str, measures: WordMeasures) -> Finding:
        hashes = _share(text.count("#"), measures.words)
        if hashes > self._symbols:
            return "gopher_too_many_hashes", f"{hashes:.4g} number signs a word, more than {self._symbols:.4g}"
        ellipses = _share(sum(map(text.count, _ELLIPSES)), measures.words)
        if ellipses > self._symbols:
            return "gopher_too_many_ellipsis", f"{ellipses:.4g} ellipses a word, more than {self._symbols:.4g}"
        return None

    def _of_lines(self, text: str) -> Finding:
        lines = text.splitlines()
        if any(map(text.__contains__, _BULLETS)):
            bullets = _share(sum(line.lstrip().startswith(_BULLETS) for line in lines), len(lines))
            if bullets > self._bullets:
                return "gopher_too_many_bullets", f"{bullets:.4g} of the lines bullets, more than {self._bullets:.4g}"
        if any(map(text.__contains__, _ELLIPSES)):
            cut = _share(sum(line.rstrip().endswith(_ELLIPSES) for line in lines), len(lines))
            if cut > self._ellipses:
                return "gopher_too_many_end_ellipsis", f"{cut:.4g} of the lines cut off, more than {self._ellipses:.4g}"
        return None

    def _of_words(self, measures: WordMeasures) -> Finding:
        letters = _share(measures.with_letter, measures.words)
        if letters < self._letters:
            return (
                "gopher_below_alpha_threshold",
                f"{letters:.4g} of the words with a letter, fewer than {self._letters:.4g}",
            )
        if measures.listed < self._stops:
            return "gopher_enough_stop_words", f"{measures.listed} stop words, fewer than {self._stops}"
        return None


@declare(version=1)
class GopherRepetition:
    """Drops texts that repeat lines, paragraphs or runs of words; needs English. ``top_n_grams`` limits the share of
    the most frequent run of so many words, ``dup_n_grams`` that of all repeated ones. A limit of nothing or 0 is not
    checked.
    """

    def __init__(
        self,
        *,
        dup_line_frac: float | None = 0.3,
        dup_para_frac: float | None = 0.3,
        dup_line_char_frac: float | None = 0.2,
        dup_para_char_frac: float | None = 0.2,
        top_n_grams: tuple[tuple[int, float], ...] = ((2, 0.2), (3, 0.18), (4, 0.16)),
        dup_n_grams: tuple[tuple[int, float], ...] = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.1)),
    ) -> None:
        for name, pairs in (("top_n_grams", top_n_grams), ("dup_n_grams", dup_n_grams)):
            if not all(1 <= size <= _LONGEST_RUN for size, _ in pairs):
                raise UserError(f"gopher_repetition: {name} has a run that is not of 1 to {_LONGEST_RUN} words")
        self._lines = (dup_line_frac or float("inf"), dup_line_char_frac or float("inf"))
        self._paragraphs = (dup_para_frac or float("inf"), dup_para_char_frac or float("inf"))
        self._top, self._repeated = tuple(top_n_grams), tuple(dup_n_grams)
        self._limits: tuple[tuple[Places, Limits], tuple[Places, Limits]] | None = None

    def __call__(self, documents: Sequence[Document]) -> Iterator[Piece]:
        """Each document, or why it is dropped."""
        for document in documents:
            yield _judged(document, "gopher_repetition", self.finding(document.text), _REPETITION)

    def finding(self, text: str) -> Finding:
        """The first rule that the text breaks."""
        if not text:
            return "empty", "no text"
        paragraphs, lines = _PARAGRAPHS.split(text.strip()), _LINES.split(text)
        found = _repeats(text, paragraphs, "para", "paragraphs", self._paragraphs)
        return found or _repeats(text, lines, "line", "lines", self._lines) or self._of_words(text)

    def _of_words(self, text: str) -> Finding:
        from treadle.text.english.text import EnglishText

        if self._limits is None:
            self._limits = (_arrays(self._top), _arrays(self._repeated))
        kind, which, share = EnglishText([text]).repetition(*self._limits)
        if kind == 0:
            return None
        size, limit = (self._top if kind == 1 else self._repeated)[which]
        if kind == 1:
            return f"top_{size}_gram", f"{share:.4g} of the text one run of {size} words, more than {limit:.4g}"
        return (
            f"duplicated_{size}_n_grams",
            f"{share:.4g} of the text repeated runs of {size} words, more than {limit:.4g}",
        )


def _repeats(text: str, parts: list[str], name: str, noun: str, limits: tuple[float, float]) -> Finding:
    """Parts that stood there before, as a share of all and of the characters."""
    distinct = set(parts)
    share = (len(parts) - len(distinct)) / len(parts)
    if share > limits[0]:
        return f"dup_{name}_frac", f"{share:.4g} of the {noun} repeated, more than {limits[0]:.4g}"
    share = repeated_characters(parts, distinct) / len(text)
    if share > limits[1]:
        return f"dup_{name}_char_frac", f"{share:.4g} of the text repeated {noun}, more than {limits[1]:.4g}"
    return None


def repeated_characters(parts: Sequence[str], distinct: set[str]) -> int:
    """Characters of the parts that stood there before."""
    if len(distinct) == len(parts):
        return 0
    return sum(map(len, parts)) - sum(map(len, distinct))


def _arrays(pairs: Sequence[tuple[int, float]]) -> tuple[Places, Limits]:
    import numpy as np

    return np.array([size for size, _ in pairs], np.int32), np.array([limit for _, limit in pairs], np.float64)


def _judged(document: Document, transform: str, found: Finding, source: str) -> Piece:
    return Dropped(document, f"{transform}.{found[0]}", f"{found[1]} ({source})") if found else document


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0
