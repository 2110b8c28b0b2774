"""Pairs of documents that share a band of their sketches, and so may be alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from treadle.text.document import Document
from treadle.text.minhash import band_keys
from treadle.text.shingles import chunks, shingles

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of the others in its bucket, a document is compared with so many of nearest size: what is frequent everywhere makes
# buckets of thousands. True duplicates are joined through their neighbors all the same.
_NEIGHBORS = 64


class Sketch(NamedTuple):
    """What is remembered of a shard's documents: 8 bytes for each band, and 20 more, for each."""

    bands: NDArray[np.uint64]  # (documents, bands)
    whole: NDArray[np.uint64]  # of all bands: two documents of one number are taken as one until compared
    counts: NDArray[np.int32]  # shingles, with repeats; 0 where a text has no words
    characters: NDArray[np.int64]


def sketch(documents: Sequence[Document], words: int, bands: int, rows: int) -> Sketch:
    """The sketch of a shard."""
    texts = [document.text for document in documents]
    keys, counts = [np.empty((0, bands), dtype=np.uint64)], [np.empty(0, dtype=np.int64)]
    for first, last in chunks(texts):
        hashes, starts = shingles(texts[first:last], words)
        keys.append(band_keys(hashes, starts, bands, rows))
        counts.append(np.diff(starts))
    found = np.concatenate(keys)
    whole = np.zeros(len(found), dtype=np.uint64)
    for band in range(bands):
        whole = whole * np.uint64(0x9E3779B97F4A7C15) + found[:, band]
    characters = np.array([len(text) for text in texts], dtype=np.int64)
    return Sketch(found, whole, np.concatenate(counts).astype(np.int32), characters)


def pairs_within(sketches: Sequence[Sketch]) -> NDArray[np.int64]:
    """Numbers of documents that may be alike, smaller first, sorted, of shape (pairs, 2)."""
    counts = np.concatenate([each.counts for each in sketches])
    whole = np.concatenate([each.whole for each in sketches])
    members = np.flatnonzero(counts)
    order = np.lexsort((members, whole[members]))
    ordered, keys = members[order], whole[members][order]
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = keys[1:] != keys[:-1]
    leaders = ordered[first]
    leader_of = ordered[np.flatnonzero(first)[np.cumsum(first) - 1]] if len(ordered) else ordered
    total = len(counts)
    codes = (leader_of * total + ordered)[~first]
    leaders.sort()
    for band in range(sketches[0].bands.shape[1]):
        keys = np.concatenate([each.bands[:, band] for each in sketches])[leaders]
        order = np.lexsort((leaders, counts[leaders], keys))
        codes = np.union1d(codes, _neighbors(leaders[order], keys[order], total))
    return np.stack((codes // max(total, 1), codes % max(total, 1)), axis=1)


def pairs_between(earlier: Sequence[Sketch], later: Sequence[Sketch]) -> NDArray[np.int64]:
    """Pairs of a later document and an earlier one, each numbered on its own, sorted, of shape (pairs, 2)."""
    count = sum(len(each.counts) for each in earlier)
    codes = np.empty(0, dtype=np.int64)
    theirs, ours = (np.concatenate([each.counts for each in both]) > 0 for both in (earlier, later))
    places, numbers = np.flatnonzero(theirs), np.flatnonzero(ours)
    for band in range(later[0].bands.shape[1]):
        known = np.concatenate([each.bands[:, band] for each in earlier])[places]
        order = np.argsort(known, kind="stable")
        asked = np.concatenate([each.bands[:, band] for each in later])[numbers]
        low = np.searchsorted(known[order], asked, side="left")
        many = np.minimum(np.searchsorted(known[order], asked, side="right") - low, _NEIGHBORS)
        starts = np.cumsum(many) - many
        at = np.arange(many.sum()) + np.repeat(low - starts, many)
        codes = np.union1d(codes, np.repeat(numbers, many) * count + places[order][at])
    return np.stack((codes // max(count, 1), codes % max(count, 1)), axis=1)


def _neighbors(members: NDArray[np.int64], keys: NDArray[np.uint64], total: int) -> NDArray[np.int64]:
    found = [np.empty(0, dtype=np.int64)]
    for distance in range(1, min(_NEIGHBORS, len(members) - 1) + 1):
        at = np.flatnonzero(keys[distance:] == keys[:-distance])
        if not len(at):
            break
        one, other = members[at], members[at + distance]
        found.append(np.minimum(one, other) * total + np.maximum(one, other))
    return np.concatenate(found)
