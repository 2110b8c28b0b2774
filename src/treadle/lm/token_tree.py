"""Sequences of tokens that begin alike, as one row: what they share stands there once.

Each token of the row may look at those before it in its own sequences and at no others, so a model that gets the row
with ``allowed`` as its mask and ``depths`` as its positions computes for each sequence what it would alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TokenTree:
    """``paths``: for each sequence the places of its tokens in ``ids``; ``parents``: the place before each, -1 for a
    first token."""

    ids: list[int]
    parents: list[int]
    paths: list[list[int]]

    @property
    def branches(self) -> bool:
        """False where the row is one sequence, for which a model needs no mask."""
        return any(parent != place - 1 for place, parent in enumerate(self.parents))

    def depths(self) -> NDArray[Any]:
        """How many tokens stand before each, of shape (n,)."""
        import numpy as np

        depths = np.zeros(len(self.ids), dtype=np.int64)
        for place, parent in enumerate(self.parents):
            depths[place] = depths[parent] + 1 if parent >= 0 else 0
        return depths

    def allowed(self) -> NDArray[Any]:
        """Row i: what token i may look at, itself included; of shape (n, n)."""
        import numpy as np

        allowed = np.zeros((len(self.ids), len(self.ids)), dtype=bool)
        for place, parent in enumerate(self.parents):
            if parent >= 0:
                allowed[place] = allowed[parent]
            allowed[place, place] = True
        return allowed


def grow(sequences: Sequence[Sequence[int]], limit: int, longest: int | None = None) -> TokenTree:
    """A tree of the first sequences, at least one, that take ``limit`` tokens together at most, and none but the first
    more than ``longest`` of its own.

    Each is laid beside the one before it, so sequences that begin alike should be neighbors.
    """
    ids: list[int] = []
    parents: list[int] = []
    paths: list[list[int]] = []
    before: Sequence[int] = ()
    for sequence in sequences:
        shared = common_start(before, sequence)
        own = len(sequence) - shared
        if paths and (len(ids) + own > limit or (longest is not None and own > longest)):
            break
        path = paths[-1][:shared] if paths else []
        for token in sequence[shared:]:
            parents.append(path[-1] if path else -1)
            path.append(len(ids))
            ids.append(token)
        paths.append(path)
        before = sequence
    return TokenTree(ids, parents, paths)


def common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    count = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        count += 1
    return count
