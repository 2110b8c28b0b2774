"""Sentences by the rule of spaCy's sentencizer: one ends before the first word that is no punctuation after a word that
may end a sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from treadle.text.english.characters import PUNCTUATION, SENTENCE_END
from treadle.text.english.compiled import compiled
from treadle.text.english.kernel import text_of
from treadle.text.english.phrases import all_words

if TYPE_CHECKING:
    from treadle.text.english.kernel import Codes, Hashes, Places, Rules, Text


@compiled
def _sentence_ends(text: Text, low: int, high: int, width: int) -> Places:
    starts, ends = all_words(text, low, high, width, True)
    codes, bits = text.codes, text.rules.bits
    found = np.empty(len(starts), np.int32)
    count = 0
    ended = False
    for place in range(len(starts)):
        start, end = starts[place], ends[place]
        if end - start == 1 and bits[codes[start]] & SENTENCE_END:
            ended = True
            continue
        if not ended:
            continue
        while start < end and bits[codes[start]] & PUNCTUATION:
            start += 1
        if start < end:
            found[count] = ends[place - 1]
            count += 1
            ended = False
    if len(ends):
        found[count] = ends[-1]
        count += 1
    return found[:count]


@compiled
def sentence_ends(codes: Codes, sums: Hashes, powers: Hashes, rules: Rules) -> Places:
    """Where each sentence ends, without the space behind it."""
    return _sentence_ends(text_of(codes, sums, powers, rules), 0, len(codes), rules.nodes.shape[1])


@compiled
def count_sentences(codes: Codes, sums: Hashes, powers: Hashes, rules: Rules, bounds: Places) -> int:
    """Sentences of texts that lie end to end in ``codes``, each from one of ``bounds`` to the next. An empty one has
    one.
    """
    text = text_of(codes, sums, powers, rules)
    count = 0
    for number in range(len(bounds) - 1):
        count += max(1, len(_sentence_ends(text, bounds[number], bounds[number + 1], rules.nodes.shape[1])))
    return count
