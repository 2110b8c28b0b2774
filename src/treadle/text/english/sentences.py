"""Sentences by the rule of spaCy's sentencizer: one ends before the first word that is no punctuation after a word that
may end a sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from treadle.text.english.characters import PUNCTUATION, SENTENCE_END
from treadle.text.english.compiled import entry

if TYPE_CHECKING:
    from treadle.text.english.strings import Codes, Places


@entry
def sentences(codes: Codes, bits: Codes, starts: Places, ends: Places, firsts: Places) -> tuple[Places, Places]:
    """Where each sentence ends, without the space behind it; and how many sentences each part of the text has. Parts
    have the words from one of ``firsts`` to the next; one without words has one sentence, that ends nowhere.
    """
    found = np.empty(len(starts), np.int32)
    counts = np.ones(len(firsts) - 1, np.int32)
    count = 0
    for part in range(len(firsts) - 1):
        before = count
        ended = False
        for place in range(firsts[part], firsts[part + 1]):
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
        if firsts[part] < firsts[part + 1]:
            found[count] = ends[firsts[part + 1] - 1]
            count += 1
            counts[part] = count - before
    return found[:count], counts
