"""Which places of a packed row see each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def visible(segments: torch.Tensor, dtype: torch.dtype, *, causal: bool) -> torch.Tensor:
    """Additive mask of shape (rows, 1, width, width): a place sees its own segment; if ``causal``, up to itself.

    A place without a token sees others without one, or its softmax would be over nothing.
    """
    import torch

    same = segments.unsqueeze(2) == segments.unsqueeze(1)
    if causal:
        width = segments.shape[1]
        same &= torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
    mask = torch.zeros(same.shape, dtype=dtype, device=segments.device)
    return mask.masked_fill_(~same, torch.finfo(dtype).min).unsqueeze(1)
