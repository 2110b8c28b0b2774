"""The arrays of a similarity index: BM25's postings, every run of words and where it stands, and how rare words are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.text.words import run_hashes, word_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN = 3  # words; two rare words in a row are too often a name that both texts must use
# Robertson and Zaragoza 2009, the usual middle of the ranges they recommend.
_K1, _B = 1.2, 0.75


def term_arrays(lines: Sequence[Sequence[str]], known: dict[str, int]) -> dict[str, NDArray[Any]]:
    """BM25's postings with the weight of every (term, entry) worked out: a query only adds them up."""
    lengths = np.array([len(line) for line in lines], dtype=np.float64)
    terms = word_numbers([word for line in lines for word in line], known)
    owner = np.repeat(np.arange(len(lines)), lengths.astype(np.int64))
    order = np.lexsort((owner, terms))
    terms, owner = terms[order], owner[order]
    fresh = np.ones(len(terms), dtype=bool)
    fresh[1:] = (np.diff(terms) != 0) | (np.diff(owner) != 0)
    at = np.flatnonzero(fresh)
    frequency = np.diff(np.concatenate((at, [len(terms)])))
    terms, owner = terms[at], owner[at]
    unique, first, within = np.unique(terms, return_index=True, return_counts=True)
    rarity = np.repeat(np.log1p((len(lines) - within + 0.5) / (within + 0.5)), within)
    norm = _K1 * (1 - _B + _B * lengths[owner] / max(float(lengths.mean()) if len(lengths) else 1.0, 1.0))
    return {
        "terms": unique,
        "term_offsets": np.concatenate((first, [len(terms)])).astype(np.int64),
        "postings": owner.astype(np.int32),
        "weights": (rarity * frequency * (_K1 + 1) / (frequency + norm)).astype(np.float32),
    }


def run_arrays(told: Sequence[NDArray[np.uint64]]) -> dict[str, NDArray[Any]]:
    """All entries' words in one line, and every run of ``RUN`` words in it that does not cross two entries."""
    words = np.concatenate([*told, np.empty(0, dtype=np.uint64)])
    lengths = np.array([len(numbers) for numbers in told], dtype=np.int64)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    owner = np.repeat(np.arange(len(told)), lengths)
    hashes = run_hashes(words, RUN)
    places = np.flatnonzero(owner[: len(hashes)] == owner[RUN - 1 :][: len(hashes)])
    order = np.argsort(hashes[places], kind="stable")
    return {
        "words": words,
        "starts": starts,
        "runs": hashes[places][order],
        "run_places": places[order].astype(np.int64),
    }


def word_weights(words: NDArray[np.uint64], starts: NDArray[np.int64], entries: int) -> NDArray[Any]:
    """Inverse document frequency (nats) of each word of the answers, sorted by word."""
    owner = np.repeat(np.arange(entries), np.diff(starts))
    order = np.lexsort((owner, words))
    first = np.ones(len(words), dtype=bool)  # of the places where an entry has a word
    first[1:] = (np.diff(words[order]) != 0) | (np.diff(owner[order]) != 0)
    unique, count = np.unique(words[order][first], return_counts=True)
    table = np.empty(len(unique), dtype=[("word", np.uint64), ("weight", np.float64)])
    table["word"], table["weight"] = unique, np.log(entries / count)
    return table
