"""Special cases that other rules have cut up, put together again: the last pass of ``spacy.tokenizer``.

``[3]):`` is cut into ``[``, ``3``, ``]``, ``)`` and ``:``; ``):`` is in the table and becomes one word. The longest run
of words that is in the table wins, the first of equals; a run that a longer one touches is left as it is. Runs across
a blank are in no table but stand in the way of others all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from treadle.text.english.compiled import compiled, entry, pointer
from treadle.text.english.kernel import put_special, split
from treadle.text.english.strings import number_of, special_case, text_of

if TYPE_CHECKING:
    from treadle.text.english.strings import Codes, Hashes, Places, Rules, Text

NESTED = 4  # at most so many phrases begin at the same word


@compiled
def _runs(text: Text, width: int, starts: Places, ends: Places, count: int, firsts: Places, lengths: Places) -> int:
    """Where runs of two or more words begin that are in the table, and how many words they have."""
    rules = text.rules
    longest = rules.longest_phrase_word
    found = 0
    before = 0  # the node of the word before
    for place in range(count):
        number = 0
        if ends[place] - starts[place] <= longest:
            number = number_of(rules.phrase_words, text, starts[place], ends[place]) + 1
        node = rules.nodes[before * width + number] if before else 0
        after = place
        while node:
            if rules.final[node]:
                firsts[found] = place - 1
                lengths[found] = after - place + 2
                found += 1
            after += 1
            if after >= count or ends[after] - starts[after] > longest:
                break
            following = number_of(rules.phrase_words, text, starts[after], ends[after]) + 1
            node = rules.nodes[node * width + following]
        before = rules.nodes[number]
    return found


@compiled
def _chosen(firsts: Places, lengths: Places, found: int, count: int) -> Places:
    """For each word how many words the chosen run has that begins there; 0 where none does."""
    chosen = np.zeros(count, np.int32)
    seen = np.zeros(count, np.bool_)
    longest = 0
    for number in range(found):
        longest = max(longest, lengths[number])
    for length in range(longest, 1, -1):
        for number in range(found):
            if lengths[number] != length:
                continue
            first = firsts[number]
            if not seen[first] and not seen[first + length - 1]:
                chosen[first] = length
            seen[first : first + length] = True  # of the ones not chosen too
    return chosen


@compiled
def _joined(text: Text, starts: Places, ends: Places, chosen: Places) -> tuple[Places, Places]:
    """The words with the chosen runs as the table has them."""
    count = len(starts)
    size = ends[-1] - starts[0]  # no word is empty
    new_starts = np.empty(size, np.int32)
    new_ends = np.empty(size, np.int32)
    written = 0
    place = 0
    while place < count:
        length = max(1, chosen[place])
        special = -1
        if length > 1:
            special = special_case(text, starts[place], ends[place + length - 1])
        if special >= 0:
            written = put_special(text, special, starts[place], pointer(new_starts), pointer(new_ends), written)
        else:
            for number in range(place, place + length):
                new_starts[written], new_ends[written] = starts[number], ends[number]
                written += 1
        place += length
    return new_starts[:written], new_ends[:written]


@compiled
def _words(text: Text, low: int, high: int, width: int) -> tuple[Places, Places]:
    """Where each word from ``low`` to ``high`` starts and ends, those of white space included. ``width`` is the number
    of words that phrases are made of, plus one.
    """
    size = high - low + 1
    starts = np.empty(2 * size, np.int32)  # its second half is room to work in
    ends = np.empty(size, np.int32)
    count = split(text, low, high, pointer(starts), pointer(ends), pointer(starts[size:]))
    starts, ends = starts[:count], ends[:count]
    if count < 2:
        return starts, ends
    firsts = np.empty(NESTED * count, np.int32)
    lengths = np.empty(NESTED * count, np.int32)
    found = _runs(text, width, pointer(starts), pointer(ends), count, pointer(firsts), pointer(lengths))
    if found == 0:
        return starts, ends
    return _joined(text, starts, ends, _chosen(firsts, lengths, found, count))


@entry
def words(codes: Codes, sums: Hashes, powers: Hashes, rules: Rules, bounds: Places) -> tuple[Places, Places, Places]:
    """Where each word starts and ends, those of white space included; and the number of the first word of each part of
    the text, parts being from one of ``bounds`` to the next and split each by itself.
    """
    text = text_of(codes, sums, powers, rules)
    width = rules.nodes.shape[1]
    firsts = np.zeros(len(bounds), np.int32)
    if len(bounds) == 2:
        starts, ends = _words(text, bounds[0], bounds[1], width)
        firsts[1] = len(starts)
        return starts, ends, firsts
    all_starts = np.empty(len(codes), np.int32)  # no word is empty
    all_ends = np.empty(len(codes), np.int32)
    count = 0
    for part in range(len(bounds) - 1):
        starts, ends = _words(text, bounds[part], bounds[part + 1], width)
        for place in range(len(starts)):
            all_starts[count], all_ends[count] = starts[place], ends[place]
            count += 1
        firsts[part + 1] = count
    return all_starts[:count], all_ends[:count], firsts
