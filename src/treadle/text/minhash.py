"""MinHash and its bands: which texts may be alike, found without comparing each with each.

A sketch has ``bands * rows`` places. Two sets agree in a place with a probability equal to their Jaccard similarity s
(Broder 1997), so they share a whole band, and become a candidate pair, with probability

    1 - (1 - s^rows)^bands

an S-shaped curve whose steep part is put just below the threshold (Leskovec, Rajaraman and Ullman, Mining of Massive
Datasets, 3.4). For 0.8 that is 21 bands of 6 rows:

    similarity    0.4    0.5    0.6    0.7    0.75   0.8    0.85   0.9
    candidate     0.083  0.282  0.633  0.928  0.984  0.998  1.000  1.000

Places are filled as in Dahlgaard, Knudsen and Thorup, Fast Similarity Sketching over a Few Elements (2017): in each
round every shingle falls into one place, the least of those that fall there stays, and a filled place is final. After
``_ROUNDS`` rounds, places still empty get the least of all shingles by a hash of their own. So a long text costs one
hash for each shingle, not one for each shingle and place. Seeds and order are part of every digest: never change them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from treadle.core.errors import UserError
from treadle.text.shingles import mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLACES = 128  # at most
FOUND = 0.99  # the share of pairs exactly at the threshold that becomes candidates, at least
_ROUNDS = 16
_MANY = 1 << 16  # members of sets with empty places, before repeats are taken out
_MOST_DRAWN = 1 << 20  # hashes at a time, before repeats are taken out
_EMPTY = np.uint32(0xFFFFFFFF)
_SEED = 0xA0761D6478BD642F
_LAST_SEED = np.uint64(0xE7037ED1A0B428DB)
_BAND_BASE = np.uint64(0x9E3779B97F4A7C15)


def s_curve(similarity: float, bands: int, rows: int) -> float:
    """The probability that two sets of this Jaccard similarity become a candidate pair."""
    return 1 - (1 - similarity**rows) ** bands


def bands_and_rows(threshold: float) -> tuple[int, int]:
    """The most rows, and so the fewest false candidates, with which ``FOUND`` of the pairs at the threshold are
    found in ``PLACES`` places; ``UserError`` for a threshold that no sketch of this size serves."""
    for rows in range(PLACES // 2, 0, -1):
        if s_curve(threshold, PLACES // rows, rows) >= FOUND:
            return PLACES // rows, rows
    raise UserError(f"a similarity of {threshold} is too low to look for; expected 0.1 or more, and at most 1")


def band_keys(hashes: NDArray[np.uint64], starts: NDArray[np.int64], bands: int, rows: int) -> NDArray[np.uint64]:
    """A number for each band of each set, of shape (sets, bands). ``hashes`` are the sets' members, one set after the
    other (repeats do not matter), ``starts`` where each begins, of shape (sets + 1,)."""
    sketch = sketches(hashes, starts, bands * rows).reshape(-1, bands, rows)
    keys = np.zeros(sketch.shape[:2], dtype=np.uint64)
    for row in range(rows):
        keys *= _BAND_BASE
        keys += sketch[:, :, row]
    return mix(keys)


def sketches(hashes: NDArray[np.uint64], starts: NDArray[np.int64], places: int) -> NDArray[np.uint32]:
    """Of shape (sets, places); a set without members has an empty sketch."""
    counts = np.diff(starts)
    filled = np.full(len(counts) * places, _EMPTY, dtype=np.uint32)
    owners = np.repeat(np.arange(len(counts)), counts)
    members = hashes
    for number in range(_ROUNDS):
        drawn = members if number == 0 else mix(members + np.uint64(_SEED * number % 2**64))
        where = ((drawn >> np.uint64(32)) * np.uint64(places) >> np.uint64(32)).astype(np.int64) + owners * places
        values = drawn.astype(np.uint32)
        if number:
            open_ = filled[where] == _EMPTY
            where, values = where[open_], values[open_]
        np.minimum.at(filled, where, values)
        wanting = (filled.reshape(-1, places) == _EMPTY).any(axis=1)
        if not wanting.any():
            break
        again = wanting[owners]
        members, owners = members[again], owners[again]
        if number == 0 and len(members) > _MANY:  # of a set that leaves places empty nearly all are repeats
            hashes, starts = _once(hashes, starts)
            owners = np.repeat(np.arange(len(counts)), np.diff(starts))
            again = wanting[owners]
            members, owners = hashes[again], owners[again]
    else:
        _fill(filled, hashes, starts, places)
    return filled.reshape(-1, places)


def _fill(filled: NDArray[np.uint32], hashes: NDArray[np.uint64], starts: NDArray[np.int64], places: int) -> None:
    """Each empty place gets the least of all the set's members, by a hash of the place."""
    empty = np.flatnonzero(filled == _EMPTY)
    counts = np.diff(starts)[empty // places]
    empty, counts = empty[counts > 0], counts[counts > 0]
    if not len(empty):
        return
    if counts.sum() > _MOST_DRAWN and len((once := _once(hashes, starts))[0]) < len(hashes):
        _fill(filled, *once, places)  # whose places stay empty has few members, but may repeat them a million times
        return
    ends = np.concatenate(([0], np.cumsum(counts)))
    at = np.arange(ends[-1]) + np.repeat(starts[empty // places] - ends[:-1], counts)
    seeds = _LAST_SEED * (empty % places + 1).astype(np.uint64)
    drawn = mix(hashes[at] + np.repeat(seeds, counts)).astype(np.uint32)
    filled[empty] = np.minimum.reduceat(drawn, ends[:-1])


def _once(hashes: NDArray[np.uint64], starts: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The same sets without repeats."""
    members = [np.unique(hashes[first:last]) for first, last in pairwise(starts)]
    return np.concatenate(members), np.concatenate(([0], np.cumsum([len(each) for each in members])))
