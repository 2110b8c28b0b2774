"""An English text as the filters see it: words and sentences by the rules of spaCy's English tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from treadle.text.english.characters import SPACE
from treadle.text.english.measures import WordMeasures, word_measures
from treadle.text.english.phrases import words
from treadle.text.english.repeats import repetition
from treadle.text.english.rules import code_points, english, powers
from treadle.text.english.sentences import sentences
from treadle.text.english.strings import hash_characters

if TYPE_CHECKING:
    from treadle.text.english.repeats import Limits
    from treadle.text.english.strings import Places, Strings


class EnglishText:
    """A text, split. ``parts`` are lines or the like that are split each by itself; by default it is one."""

    def __init__(self, parts: Sequence[str]) -> None:
        self._whole = "".join(parts)
        codes = code_points(self._whole)
        self._arguments = (codes, hash_characters(codes), powers(len(codes)), english())
        bounds = np.cumsum([0, *map(len, parts)], dtype=np.int32)
        self._starts, self._ends, self._firsts = words(*self._arguments, bounds)

    def _places(self) -> tuple[Places, Places]:
        """Where words start and end that are no white space."""
        codes, _, _, rules = self._arguments
        real = (rules.bits[codes[self._starts]] & SPACE) == 0
        return self._starts[real], self._ends[real]

    def words(self) -> list[str]:
        """The words, those of white space left out."""
        starts, ends = self._places()
        return [self._whole[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def word_count(self) -> int:
        """The number of words."""
        return len(self._places()[0])

    def sentence_counts(self) -> list[int]:
        """Sentences of each part; an empty one has one."""
        codes, _, _, rules = self._arguments
        counts: list[int] = sentences(codes, rules.bits, self._starts, self._ends, self._firsts)[1].tolist()
        return counts

    def sentences(self) -> list[str]:
        """The sentences of a text that is one part, each with the space in front of it; together they are the text."""
        codes, _, _, rules = self._arguments
        ends = sentences(codes, rules.bits, self._starts, self._ends, self._firsts)[0].tolist()[:-1]
        return [self._whole[start:end] for start, end in zip([0, *ends], [*ends, len(self._whole)], strict=True)]

    def word_measures(self, listed: Strings) -> WordMeasures:
        """Counts over the words; ``listed`` are words to look for."""
        return word_measures(*self._arguments, self._starts, self._ends, listed)

    def repetition(self, top: tuple[Places, Limits], repeated: tuple[Places, Limits]) -> tuple[int, int, float]:
        """The first limit that the text exceeds, see ``repeats.repetition``."""
        return repetition(*self._arguments, *self._places(), *top, *repeated)
