"""A two-dimensional map on which texts that use the same words lie near each other.

Words are hashed into columns weighted by tf-idf, reduced to a few dimensions by a truncated SVD, and laid out by
pulling each text toward its nearest neighbors while chance pairs push each other away (the objective of UMAP, McInnes
et al. 2018, with the kernel 1 / (1 + d^2)). After the SVD everything is done in rounded numbers and in plain
arithmetic, so the same texts give the same map however many threads the linear algebra had. Near means alike; far,
and the axes, mean nothing.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_COLUMNS = 1024
_DIMENSIONS = 24
_NEIGHBORS = 12
_EPOCHS = 160
_PUSHED = 4  # chance pairs for each pair of neighbors
_FEWEST = 8  # texts below which a map says nothing
_ROUNDED = 20_000  # steps of a coordinate between 0 and 1
_REGIONS = 9


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the map with the words that are typical of it; ``x`` and ``y`` are its middle."""

    x: float
    y: float
    words: tuple[str, ...]
    texts: int


@dataclass(frozen=True, slots=True)
class TextMap:
    """Places of the texts, each coordinate from 0 to 1, the region of each, and the regions."""

    places: list[tuple[float, float]]
    region_of: list[int]
    regions: list[Region]


def lay_out(
    texts: Sequence[Sequence[str]], *, fewest_texts: int = 2, unsaid: frozenset[str] = frozenset()
) -> TextMap | None:
    """The map of texts given as words; None when there are too few or they say too little.

    A word names a region only when at least ``fewest_texts`` of the region use it; ``unsaid`` words never do.
    """
    import numpy as np

    if len(texts) < _FEWEST or sum(map(bool, texts)) < _FEWEST:
        return None
    reduced = _reduced(_weighted(texts))
    if not np.any(reduced):
        return None
    pairs = _neighbors(reduced)
    places = _relaxed(reduced[:, :2].astype(np.float64), pairs)
    places = _filling(places)
    region_of, middles = _regions(places)
    typical = _typical(texts, region_of, len(middles), fewest_texts, unsaid)
    regions = [
        Region(round(float(x), 4), round(float(y), 4), typical[n], int((region_of == n).sum()))
        for n, (x, y) in enumerate(middles)
    ]
    return TextMap([(round(float(x), 4), round(float(y), 4)) for x, y in places], region_of.tolist(), regions)


def _filling(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates from 0 to 1, such that a few far off texts do not push the others together."""
    import numpy as np

    ordered = np.sort(places, axis=0)
    edge = len(places) // 30
    low, high = ordered[edge], ordered[len(places) - 1 - edge]
    scaled = (places - low) / np.maximum(high - low, 1e-9)
    # Beyond the edge a distance d is drawn as d / (1 + 8 d): always inside, and the order stays.
    under, over = np.maximum(-scaled, 0), np.maximum(scaled - 1, 0)
    scaled = np.clip(scaled, 0, 1) - under / (1 + 8 * under) + over / (1 + 8 * over)
    return np.asarray((scaled + 0.125) / 1.25)


def _weighted(texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
    """Rows of length 1: (1 + log of the count) times the log of how rare the column is."""
    import numpy as np

    matrix = np.zeros((len(texts), _COLUMNS), dtype=np.float32)
    known: dict[str, int] = {}
    for row, words in enumerate(texts):
        for word, count in Counter(words).items():
            column = known.get(word)
            if column is None:
                column = known[word] = zlib.crc32(word.encode("utf-8", "surrogatepass")) % _COLUMNS
            matrix[row, column] += count
    rare = np.log((1 + len(texts)) / (1 + (matrix > 0).sum(axis=0)))
    matrix = np.log1p(matrix) * rare.astype(np.float32)
    return np.asarray(matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def _reduced(matrix: NDArray[np.float32]) -> NDArray[np.int64]:
    """The first singular directions as whole numbers, so that what follows is exact."""
    import numpy as np

    values = matrix.astype(np.float64)
    few = len(values) < _COLUMNS  # the smaller square has the same directions
    squares, vectors = np.linalg.eigh(values @ values.T if few else values.T @ values)
    squares, vectors = squares[::-1][:_DIMENSIONS], vectors[:, ::-1][:, :_DIMENSIONS]
    projected = vectors * np.sqrt(np.maximum(squares, 0)) if few else values @ vectors
    largest = np.abs(projected).argmax(axis=0)
    projected = projected * np.where(projected[largest, np.arange(projected.shape[1])] < 0, -1.0, 1.0)
    return np.asarray(np.rint(projected * _ROUNDED), dtype=np.int64)


def _neighbors(reduced: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs (a text, one of its nearest), of shape (n * k, 2). Sums of whole numbers are the same in any order."""
    import numpy as np

    wanted = min(_NEIGHBORS, len(reduced) - 1)
    values = reduced.astype(np.float64)
    squares = (values * values).sum(axis=1)
    found = []
    for start in range(0, len(values), 512):
        block = values[start : start + 512]
        distances = squares[start : start + 512, None] + squares[None, :] - 2 * (block @ values.T)
        distances[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
        found.append(np.argsort(distances, axis=1, kind="stable")[:, :wanted])
    near = np.concatenate(found)
    return np.stack([np.repeat(np.arange(len(near)), wanted), near.ravel()], axis=1)


def _relaxed(start: NDArray[np.float64], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Gradient steps that shrink to nothing: neighbors attract, chance pairs repel."""
    import numpy as np

    rng = np.random.Generator(np.random.PCG64(17))
    spread = np.abs(start).max()
    places = start / max(float(spread), 1.0) * 10 + rng.integers(-500, 501, start.shape) / 1000.0
    count = len(places)
    one, other = pairs[:, 0], pairs[:, 1]
    for epoch in range(_EPOCHS):
        rate = 0.9 * (1 - epoch / _EPOCHS)
        gap = places[one] - places[other]
        square = (gap * gap).sum(axis=1)
        pull = np.clip(gap * (-2.0 / (1.0 + square))[:, None], -4, 4)
        far = rng.integers(0, count, (count, _PUSHED))
        away = places[:, None, :] - places[far]
        distance = (away * away).sum(axis=2)
        push = np.clip(away * (2.0 / ((0.01 + distance) * (1.0 + distance)))[:, :, None], -4, 4).sum(axis=1)
        for axis in (0, 1):
            moved = np.bincount(one, pull[:, axis], count) - np.bincount(other, pull[:, axis], count)
            places[:, axis] += rate * (moved * 0.15 + push[:, axis] * 0.6)
    return places


def _regions(places: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Parts of the map by k-means, started far apart."""
    import numpy as np

    wanted = max(2, min(_REGIONS, len(places) // 25))
    middles = places[:1]
    for _ in range(wanted - 1):
        nearest = ((places[:, None, :] - middles[None]) ** 2).sum(axis=2).min(axis=1)
        middles = np.concatenate([middles, places[nearest.argmax()][None]])
    nearest_of = np.zeros(len(places), dtype=np.int64)
    for _ in range(25):
        nearest_of = ((places[:, None, :] - middles[None]) ** 2).sum(axis=2).argmin(axis=1)
        sizes = np.bincount(nearest_of, minlength=len(middles))
        sums = np.stack([np.bincount(nearest_of, places[:, axis], len(middles)) for axis in (0, 1)], axis=1)
        middles = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], middles)
    return nearest_of, middles


def _typical(
    texts: Sequence[Sequence[str]], region_of: NDArray[np.int64], count: int, fewest: int, unsaid: frozenset[str]
) -> list[tuple[str, ...]]:
    """Words that more of a region's texts use than of all texts, three for each region."""
    inside = [Counter[str]() for _ in range(count)]
    everywhere: Counter[str] = Counter()
    for words, region in zip(texts, region_of.tolist(), strict=True):
        different = {word for word in words if len(word) > 2 and not word.isdigit()} - unsaid
        inside[region].update(different)
        everywhere.update(different)
    sizes = [max(1, int((region_of == n).sum())) for n in range(count)]
    found = []
    for counts, size in zip(inside, sizes, strict=True):
        least = max(fewest, size // 20)
        scores = {
            word: n / size * (n / size - (everywhere[word] - n) / max(1, len(texts) - size))
            for word, n in counts.items()
            if n >= least
        }
        best = sorted(scores, key=lambda word: (-scores[word], word))[:3]
        found.append(tuple(word for word in best if scores[word] > 0))
    return found
