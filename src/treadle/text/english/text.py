"""An English text as the filters see it: words and sentences by the rules of spaCy's English tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from treadle.text.english.kernel import hash_characters
from treadle.text.english.measures import WordMeasures, count_words, word_measures
from treadle.text.english.phrases import words
from treadle.text.english.repeats import repetition
from treadle.text.english.rules import code_points, english, powers
from treadle.text.english.sentences import count_sentences, sentence_ends

if TYPE_CHECKING:
    from treadle.text.english.kernel import Codes, Hashes, Rules, Strings
    from treadle.text.english.repeats import Limits, Places

# The one word that spaCy cannot take: datatrove leaves it out of a text that holds it.
_UNTAKEN = "IS_ALPHA"


class EnglishText:
    """The text ready for the compiled loops; each question splits it anew."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._take(text)
        if _UNTAKEN in text and _UNTAKEN in self.words():
            self._take(text.replace(_UNTAKEN, ""))

    def _take(self, text: str) -> None:
        self._split = text
        codes = code_points(text)
        self._arguments: tuple[Codes, Hashes, Hashes, Rules] = (
            codes,
            hash_characters(codes),
            powers(len(codes)),
            english(),
        )

    def words(self) -> list[str]:
        """The words, those of white space left out."""
        starts, ends = words(*self._arguments, True)
        found = [self._split[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        return [word for word in found if not word.isspace()]

    def sentences(self) -> list[str]:
        """The sentences, each with the space in front of it; together they are the text."""
        ends = sentence_ends(*self._arguments).tolist()[:-1]
        return [self._text[start:end] for start, end in zip([0, *ends], [*ends, len(self._text)], strict=True)]

    def word_count(self) -> int:
        """The number of words."""
        return count_words(*self._arguments)

    def word_measures(self, listed: Strings) -> WordMeasures:
        """Counts over the words; ``listed`` are words to look for."""
        return word_measures(*self._arguments, listed)

    def repetition(
        self, top: tuple[Places, Limits], repeated: tuple[Places, Limits]
    ) -> tuple[int, int, float]:
        """The first limit that the text exceeds, see ``repeats.repetition``; of what was left out the share stays."""
        return repetition(*self._arguments, len(self._text), *top, *repeated)


def sentence_count(lines: Sequence[str]) -> int:
    """Sentences of all lines, each line by itself; an empty one has one."""
    whole = "".join(lines)
    if _UNTAKEN in whole:
        lines = [EnglishText(line)._split for line in lines]  # noqa: SLF001 (of this class)
        whole = "".join(lines)
    codes = code_points(whole)
    bounds = np.cumsum([0, *map(len, lines)], dtype=np.int32)
    return count_sentences(codes, hash_characters(codes), powers(len(codes)), english(), bounds)
