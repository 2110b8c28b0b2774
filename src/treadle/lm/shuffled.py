"""A shuffle that is computed and not stored: which item comes at a place, for a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treadle.core.digest import blake3_bytes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_ROUNDS = 4


def shuffled(places: npt.NDArray[np.uint64], count: int, seed: str) -> npt.NDArray[np.int64]:
    """The items (of ``count``) at these places of the order that ``seed`` names; each item is at one place.

    A Feistel network of four rounds over the smallest square of powers of two that holds ``count``, walked on until
    the result is below it (J. Black and P. Rogaway, Ciphers with Arbitrary Finite Domains, 2002).
    """
    import numpy as np

    half = np.uint64(max(1, (max(count - 1, 1).bit_length() + 1) // 2))
    low = np.uint64((1 << int(half)) - 1)
    keys = [np.uint64(int(blake3_bytes(f"{seed}\0{number}".encode())[3:19], 16)) for number in range(_ROUNDS)]

    def once(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        left, right = values >> half, values & low
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & low)
        return (left << half) | right

    found = once(places.astype(np.uint64))
    while (beyond := found >= count).any():
        found[beyond] = once(found[beyond])
    return found.astype(np.int64)


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64, on whole arrays; sums and products wrap as they should."""
    import numpy as np

    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
