"""The tables that the compiled loops look things up in, made once a process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from treadle.text.english.characters import properties, units
from treadle.text.english.exceptions import special_cases
from treadle.text.english.phrases import NESTED, words
from treadle.text.english.strings import BASE, SIEVE_BITS, SIEVE_SHIFT, Rules, Strings, hash_characters

if TYPE_CHECKING:
    from treadle.text.english.strings import Codes, Hashes

_KEPT = 1 << 22  # powers that are kept between texts
_powers = np.ones(1, np.uint64)


def code_points(text: str) -> Codes:
    """The characters as numbers; lone surrogates are numbers too."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def powers(length: int) -> Hashes:
    """The base of the hash to the power of 0 to at least ``length``."""
    global _powers
    if len(_powers) <= length:
        size = max(length + 1, 1 << 14)
        made: Hashes = np.cumprod(np.concatenate([np.ones(1, np.uint64), np.full(size - 1, BASE)]), dtype=np.uint64)
        if length > _KEPT:
            return made
        _powers = made
    return _powers


def strings(members: Sequence[str]) -> Strings:
    """The set of ``members``, each found by the number of its place."""
    slots = np.full(1 << (2 * len(members) + 1).bit_length(), -1, np.int32)
    hashes = np.array([hash_characters(code_points(word))[-1] for word in members], np.uint64)
    sieve = np.zeros(1 << (SIEVE_BITS - 3), np.uint8)
    for number, value in enumerate(hashes.tolist()):
        mixed = (value * int(BASE)) % (1 << 64) >> 32
        bit = mixed >> int(SIEVE_SHIFT)
        sieve[bit >> 3] |= 1 << (bit & 7)
        slot = mixed & (len(slots) - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = number
    offsets = np.cumsum([0, *map(len, members)], dtype=np.int32)
    return Strings(sieve, slots, hashes, offsets, code_points("".join(members)), len(slots) - 1)


@lru_cache(1)
def english() -> Rules:
    """The rules of English."""
    cases = special_cases()
    lengths = [[len(word) for word in words] for words in cases.values()]
    rules = Rules(
        bits=properties(),
        specials=strings(list(cases)),
        special_offsets=np.cumsum([0, *map(len, lengths)], dtype=np.int32),
        special_lengths=np.array([length for each in lengths for length in each], np.int32),
        longest_special=max(map(len, cases)),
        units=strings(units()),
        longest_unit=max(map(len, units())),
        phrase_words=strings([]),
        longest_phrase_word=0,
        nodes=np.zeros((1, 1), np.int16),
        final=np.zeros(1, np.int8),
    )
    plain = rules._replace(specials=strings([]))
    phrases = [words for words in (_by_rule(chunk, plain) for chunk in cases) if len(words) > 1]
    return _with_phrases(rules, phrases)


def _by_rule(chunk: str, plain: Rules) -> list[str]:
    """The words of a special case as they would be if it were none."""
    codes = code_points(chunk)
    bounds = np.array([0, len(codes)], np.int32)
    starts, ends, _ = words(codes, hash_characters(codes), powers(len(codes)), plain, bounds)
    return [chunk[start:end] for start, end in zip(starts, ends, strict=True)]


def _with_phrases(rules: Rules, phrases: Iterable[Sequence[str]]) -> Rules:
    numbers: dict[str, int] = {}
    following: list[dict[int, int]] = [{}]
    nested: list[int] = [0]  # phrases that end here or on the way here
    final: list[int] = [0]
    for phrase in sorted(phrases, key=len):
        node = 0
        for word in phrase:
            number = numbers.setdefault(word, len(numbers) + 1)
            if number not in following[node]:
                following[node][number] = len(following)
                following.append({})
                nested.append(nested[node])
                final.append(0)
            node = following[node][number]
        final[node], nested[node] = 1, nested[node] + 1
    if max(nested) > NESTED:
        raise AssertionError(f"{max(nested)} special cases begin with the same word")
    nodes = np.zeros((len(following), len(numbers) + 1), np.int16)
    for node, children in enumerate(following):
        for number, child in children.items():
            nodes[node, number] = child
    return rules._replace(
        phrase_words=strings(list(numbers)),
        longest_phrase_word=max(map(len, numbers)),
        nodes=nodes,
        final=np.array(final, np.int8),
    )
