"""What quality filters ask of the words of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from treadle.text.english.characters import LETTER, MARK, SPACE
from treadle.text.english.compiled import entry
from treadle.text.english.strings import number_of, point_at, text_of

if TYPE_CHECKING:
    from treadle.text.english.strings import Codes, Hashes, Places, Rules, Strings


class WordMeasures(NamedTuple):
    """Numbers of words; a word of marks alone (punctuation) is not plain."""

    words: int
    plain: int
    plain_characters: int
    with_letter: int
    listed: int  # different words of the list that occur


@entry
def word_measures(
    codes: Codes, sums: Hashes, powers: Hashes, rules: Rules, starts: Places, ends: Places, listed: Strings
) -> WordMeasures:
    """Counts over the words of a text."""
    text = text_of(codes, sums, powers, rules)
    wanted = point_at(listed)
    bits = text.rules.bits
    longest = 0
    for number in range(len(listed.offsets) - 1):
        longest = max(longest, listed.offsets[number + 1] - listed.offsets[number])
    seen = np.zeros(len(listed.offsets), np.bool_)
    words, plain, plain_characters, with_letter = 0, 0, 0, 0
    for place in range(len(starts)):
        start, end = starts[place], ends[place]
        if bits[text.codes[start]] & SPACE:
            continue
        words += 1
        any_plain, any_letter = False, False
        for at in range(start, end):
            kind = bits[text.codes[at]]
            any_plain = any_plain or kind & MARK == 0
            any_letter = any_letter or kind & LETTER > 0
            if any_plain and any_letter:
                break
        with_letter += any_letter
        if any_plain:
            plain += 1
            plain_characters += end - start
        if end - start <= longest:
            found = number_of(wanted, text, start, end)
            if found >= 0:
                seen[found] = True
    return WordMeasures(words, plain, plain_characters, with_letter, seen.sum())
