"""Words of a text with where they stand, and hashes of runs of words.

A run of ``n`` words is named by one 64-bit number, so that finding the runs two sets of texts share is a
sorted search and not a comparison of strings. Two different runs get the same number with a chance of about
pairs / 2^64, which is never in practice; whoever quotes a shared run as evidence compares the words
themselves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
# An odd constant with well-mixed bits (splitmix64's increment, Steele et al. 2014), so that word order
# matters.
_BASE = 0x9E3779B97F4A7C15


class Word(NamedTuple):
    """A case-folded word and the half-open range of characters it covers in the text."""

    text: str
    start: int
    end: int


def words_of(text: str) -> list[str]:
    """Case-folded words; punctuation, underscores and dots separate them."""
    return [word.casefold() for word in _WORD.findall(text)]


def located_words(text: str) -> list[Word]:
    """Words with their places in ``text``."""
    return [Word(found[0].casefold(), *found.span()) for found in _WORD.finditer(text)]


def word_numbers(words: Sequence[str], known: dict[str, int]) -> NDArray[np.uint64]:
    """A stable 64-bit number per word; ``known`` remembers those met before."""
    import numpy as np

    numbers = np.empty(len(words), dtype=np.uint64)
    for place, word in enumerate(words):
        number = known.get(word)
        if number is None:
            digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            number = known[word] = int.from_bytes(digest, "little")
        numbers[place] = number
    return numbers


def run_hashes(numbers: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """The hash of every run of ``length`` words: polynomial in 2^64, of shape (max(0, n - length + 1),)."""
    import numpy as np

    count = len(numbers) - length + 1
    if count <= 0 or length < 1:
        return np.empty(0, dtype=np.uint64)
    base = np.uint64(_BASE)
    hashes = np.zeros(count, dtype=np.uint64)
    for offset in range(length):
        hashes = hashes * base + numbers[offset : offset + count]  # wraps at 2^64 on purpose
    return hashes
