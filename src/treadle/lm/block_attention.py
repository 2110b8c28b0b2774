"""Causal attention on a processor, block by block: a block of queries is compared only with the keys up to its end.

Batched matrix products do the work, so it is as fast as those are in bfloat16, and the half above the diagonal is
hardly computed. There and back, 512 tokens a row, it takes less than half the time of torch's
``scaled_dot_product_attention`` on a processor that multiplies bfloat16. Softmaxes are kept for the way back, as plain
attention keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

NAME = "treadle_blocks"  # among transformers' ways to attend
BLOCK = 128  # queries; of 128, 256 and 512 the fastest at 512 tokens a row
_KEPT = 256  # tokens of a row whose softmaxes are kept in 32 bits: at 512 they were an eighth of a training's memory
# Families whose attention is a softmax of scaled scores and nothing else: no soft cap, no sinks, no bias by distance.
_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3"})


def use_blocks(model: Any, device: str) -> Any:
    """Let ``model`` attend in blocks where that is what it would compute anyway; returns it."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    config = model.config
    plain = device == "cpu" and config.model_type in _FAMILIES and not getattr(config, "attention_dropout", 0.0)
    if plain and not getattr(config, "sliding_window", None):
        AttentionInterface.register(NAME, _attend)
        AttentionMaskInterface.register(NAME, eager_mask)
        model.set_attn_implementation(NAME)
    return model


def attend(query: Any, key: Any, value: Any, mask: Any, scaling: float) -> Any:
    """Causal attention with gradients, of shape (rows, width, heads, size).

    ``query``: (rows, heads, width, size); ``key`` and ``value``: (rows, groups, width, size), each for so many heads
    in turn; ``mask``: what is added to the scores, (rows, 1, width, width), itself causal, or None.
    """
    return _function().apply(query, key, value, mask, scaling)


def _attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **_: Any
) -> tuple[Any, None]:
    """As transformers calls it. Wide rows in 32 bits are torch's, which is as fast there and keeps no softmaxes."""
    if query.element_size() >= 4 and query.shape[2] > _KEPT:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[Any, None] = sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            scaling=scaling,
            is_causal=False if attention_mask is not None else None,
        )
        return found
    return attend(query, key, value, attention_mask, scaling), None


def _blocks(width: int) -> Iterator[tuple[int, int]]:
    for first in range(0, width, BLOCK):
        yield first, min(width, first + BLOCK)


@cache
def _function() -> Any:
    """Made when torch is there."""
    import torch

    class Blocks(torch.autograd.Function):
        forward = staticmethod(_forward)
        backward = staticmethod(_backward)

    return Blocks


def _forward(ctx: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float) -> Any:
    import torch

    rows, heads, width, size = query.shape
    keys, values = key.flatten(0, 1), value.flatten(0, 1)
    out = query.new_empty(rows, width, heads, size)
    above = None if mask is not None else torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu(1)
    kept = []
    for first, last in _blocks(width):
        scores = torch.bmm(_joined(query, first, last, len(keys)), keys[:, :last].transpose(1, 2)).mul_(scaling)
        each = scores.view(rows, heads, last - first, last)
        if above is None:
            each.add_(mask[:, :, first:last, :last])
        else:
            each[..., first:].masked_fill_(above[: last - first, : last - first], float("-inf"))
        shares = scores.softmax(-1)
        found = torch.bmm(shares, values[:, :last])
        out[:, first:last] = found.view(rows, heads, last - first, size).transpose(1, 2)
        kept.append(shares)
    ctx.save_for_backward(query, keys, values, *kept)
    ctx.scaling = scaling
    return out


def _backward(ctx: Any, *gradients: Any) -> Any:
    import torch

    query, keys, values, *kept = ctx.saved_tensors
    rows, heads, width, size = query.shape
    back = gradients[0].transpose(1, 2)
    of_query = torch.empty_like(query)
    # Each block adds to all keys before it: in 32 bits, or every addition would be rounded.
    of_keys, of_values = (torch.zeros(each.shape, dtype=torch.float32) for each in (keys, values))
    for (first, last), shares in zip(_blocks(width), kept, strict=True):
        asked, told = (_joined(each, first, last, len(keys)) for each in (query, back))
        of_values[:, :last] += torch.bmm(shares.transpose(1, 2), told)
        of_shares = torch.bmm(told, values[:, :last].transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_shares, shares, -1, shares.dtype).mul_(ctx.scaling)
        found = torch.bmm(of_scores, keys[:, :last])
        of_query[:, :, first:last] = found.view(rows, heads, last - first, size)
        of_keys[:, :last] += torch.bmm(of_scores.transpose(1, 2), asked)
    shape = (rows, -1, width, size)
    return of_query, of_keys.to(keys.dtype).view(shape), of_values.to(values.dtype).view(shape), None, None


def _joined(each: Any, first: int, last: int, groups: int) -> Any:
    """Places of all heads that share a key, as one matrix for each such key: (rows x groups, places, size)."""
    return each[:, :, first:last].reshape(groups, -1, each.shape[-1])
