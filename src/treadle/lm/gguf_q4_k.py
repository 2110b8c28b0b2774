"""GGUF's Q4_K: 4 bits a weight, 32 with a scale and a least value of 6 bits, 256 with the scales of those.

The layout is ggml's ``block_q4_K`` (144 bytes for 256 weights); gguf's own package reads it and does not write it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK = 256  # weights
BYTES = 144
_PART = 32  # weights that share a scale and a least value
_PARTS = BLOCK // _PART
_AT_ONCE = 4096  # blocks, so that what lies around stays small
_STRETCHES = np.linspace(-1.0, 1.0, 21, dtype=np.float32)  # tried around the plain scale, in steps of 4 bits

Floats = npt.NDArray[np.float32]


def quantize(array: Any) -> npt.NDArray[np.uint8]:
    """Weights of shape (rows, columns) as bytes of shape (rows, columns / 256 * 144).

    ``ValueError`` where columns are no multiple of 256.
    """
    if array.shape[-1] % BLOCK:
        raise ValueError(f"{array.shape[-1]} columns; expected a multiple of {BLOCK}")
    parts = np.asarray(array, dtype=np.float32).reshape(-1, _PARTS, _PART)
    out = np.empty((len(parts), BYTES), dtype=np.uint8)
    for begin in range(0, len(parts), _AT_ONCE):
        out[begin : begin + _AT_ONCE] = _blocks(parts[begin : begin + _AT_ONCE])
    return out.reshape(*array.shape[:-1], array.shape[-1] // BLOCK * BYTES)


def _blocks(parts: Floats) -> npt.NDArray[np.uint8]:
    scales, below = _fitted(parts)
    step, step_below = (values.max(axis=1, keepdims=True) / 63 for values in (scales, below))
    step, step_below = step.astype(np.float16), step_below.astype(np.float16)
    whole = _rounded(scales, step.astype(np.float32), 63)
    whole_below = _rounded(below, step_below.astype(np.float32), 63)
    scale = (whole * step.astype(np.float32))[..., None]
    digits = _rounded(parts + (whole_below * step_below.astype(np.float32))[..., None], scale, 15)
    pairs = digits.reshape(-1, _PARTS // 2, 2, _PART)  # the even parts are the low halves of bytes
    packed = pairs[:, :, 0] | pairs[:, :, 1] << 4
    return np.concatenate(
        [step.view(np.uint8), step_below.view(np.uint8), _six_bits(whole, whole_below), packed.reshape(len(parts), -1)],
        axis=1,
    )


def _fitted(parts: Floats) -> tuple[Floats, Floats]:
    """Scale and negated least value of each part, of shape (blocks, 8): those of the least squared error, weighted by
    the weights' own size, among the least squares fits to 21 ways of rounding."""
    lowest = np.minimum(parts.min(axis=2), 0)
    width = parts.max(axis=2) - lowest
    importance = np.sqrt((parts * parts).mean(axis=2, keepdims=True)) + np.abs(parts)
    total, of_parts = importance.sum(axis=2), (importance * parts).sum(axis=2)
    best = np.full(lowest.shape, np.inf, dtype=np.float32)
    scale, below = np.zeros_like(best), np.zeros_like(best)
    for stretch in _STRETCHES:
        step = width / (15 + stretch)
        digits = _rounded(parts - lowest[..., None], step[..., None], 15).astype(np.float32)
        weighted = importance * digits
        first, second = weighted.sum(axis=2), (weighted * digits).sum(axis=2)
        crossed = (weighted * parts).sum(axis=2)
        slope, least = _least_squares(total, of_parts, first, second, crossed)
        error = (importance * (slope[..., None] * digits + least[..., None] - parts) ** 2).sum(axis=2)
        better = error < best
        best = np.where(better, error, best)
        scale, below = np.where(better, slope, scale), np.where(better, -least, below)
    return np.maximum(scale, 0), np.maximum(below, 0)


def _least_squares(
    total: Floats, of_parts: Floats, first: Floats, second: Floats, crossed: Floats
) -> tuple[Floats, Floats]:
    """Slope and least value, which the format has at or below 0."""
    bound = total * second - first * first
    slope = np.divide(total * crossed - of_parts * first, bound, out=np.zeros_like(bound), where=bound > 0)
    least = np.divide(of_parts - slope * first, total, out=np.zeros_like(total), where=total > 0)
    through_zero = np.divide(crossed, second, out=np.zeros_like(second), where=second > 0)
    return np.where(least > 0, through_zero, slope), np.minimum(least, 0)


def _rounded(values: Floats, step: Floats, most: int) -> npt.NDArray[np.uint8]:
    """Whole steps from 0 to ``most``; 0 where the step is."""
    steps = np.divide(values, step, out=np.zeros_like(values), where=step > 0)
    return np.clip(np.rint(steps), 0, most).astype(np.uint8)


def _six_bits(scales: npt.NDArray[np.uint8], below: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Eight scales and eight least values of 6 bits in 12 bytes: the first four of each are the low bits of bytes, and
    the two high bits of those belong to the last four."""
    return np.concatenate(
        [
            scales[:, :4] | (scales[:, 4:] >> 4) << 6,
            below[:, :4] | (below[:, 4:] >> 4) << 6,
            (scales[:, 4:] & 15) | (below[:, 4:] & 15) << 4,
        ],
        axis=1,
    )
