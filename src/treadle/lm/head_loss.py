"""Cross entropy of a batch's places, a few places at a time.

Logits of a batch are often the largest thing in a training: 8,192 places and 16,384 words are half a gigabyte, and
softmax, its gradient and both in a shorter type as much again each. Here the logits of a piece become their gradient at
once and are forgotten: none is kept for the way back, and none is computed twice (the idea of Liger Kernel's fused
linear cross entropy, arXiv:2410.10989, in plain torch).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from treadle.lm.packing import IGNORED

if TYPE_CHECKING:
    import torch

# Families whose logits are their last states times a matrix, and nothing more: no scale, no cap.
PLAIN_HEAD = frozenset({"llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "phi3", "smollm3", "olmo2"})
# Bytes of a piece's logits in float32: smaller pieces multiply worse, larger ones cost memory and gain little.
_PIECE = {"cpu": 1 << 26}
_PIECE_ELSEWHERE = 1 << 28


def summed_loss(model: Any, inputs: dict[str, Any], targets: torch.Tensor, places: torch.Tensor | None = None) -> Any:
    """Summed cross entropy in nats, a float32 scalar with its gradient. ``targets`` (places): a word each, or
    ``IGNORED``; ``places``: where in the flattened batch they are, None for everywhere."""
    import torch

    if torch.is_grad_enabled() and model.config.model_type in PLAIN_HEAD and _is_matrix(model.get_output_embeddings()):
        states = _at(places, model.base_model(**inputs).last_hidden_state)
        return _function().apply(states, model.get_output_embeddings().weight, targets)
    return losses(model, inputs, targets, places).sum()


def losses(model: Any, inputs: dict[str, Any], targets: torch.Tensor, places: torch.Tensor | None = None) -> Any:
    """As ``summed_loss``, of each place: 0 where it is ignored."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.checkpoint import checkpoint

    def loss(logits: Any, names: Any) -> Any:
        return cross_entropy(logits.float(), names, reduction="none", ignore_index=IGNORED)

    def part(rows: Any, names: Any) -> Any:
        return loss(head(rows), names)

    if model.config.model_type not in PLAIN_HEAD:
        return loss(_at(places, model(**inputs).logits), targets)
    states, head = _at(places, model.base_model(**inputs).last_hidden_state), model.get_output_embeddings()
    pieces = ((states[piece], targets[piece]) for piece in _pieces(states, model.config.vocab_size))
    # A head that has to be called computes its logits again on the way back, so that only a part is ever held.
    return torch.cat([checkpoint(part, rows, names, use_reentrant=False) for rows, names in pieces])


def _at(places: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor:
    flat = rows.flatten(0, 1)
    return flat if places is None else flat.index_select(0, places)


def _is_matrix(head: Any) -> bool:
    """Whether it is a matrix and nothing else: not corrected, nor fetched when it is called (DeepSpeed's ZeRO-3)."""
    import torch

    plain = type(head) is torch.nn.Linear and head.bias is None and not hasattr(head.weight, "ds_id")
    return plain and not head._forward_hooks and not head._forward_pre_hooks


def _pieces(states: torch.Tensor, words: int) -> list[slice]:
    size = max(1, _PIECE.get(states.device.type, _PIECE_ELSEWHERE) // (4 * words))
    return [slice(first, first + size) for first in range(0, max(1, len(states)), size)]


@cache  # made at use, since torch is imported then
def _function() -> Any:
    import torch

    class HeadLoss(torch.autograd.Function):
        """From states (places, width), a matrix (words, width) of the same type, and targets (places)."""

        @staticmethod
        def forward(ctx: Any, states: Any, matrix: Any, targets: Any) -> Any:
            total = states.new_zeros((), dtype=torch.float32)
            of_states = torch.empty_like(states)
            of_matrix = torch.zeros_like(matrix, dtype=torch.float32) if ctx.needs_input_grad[1] else None
            for piece in _pieces(states, len(matrix)):
                loss, gradient = _of_piece(states[piece], matrix, targets[piece])
                total += loss
                of_states[piece] = gradient @ matrix
                if of_matrix is not None:
                    of_matrix += gradient.T @ states[piece]
            ctx.save_for_backward(of_states, of_matrix)
            ctx.dtype = matrix.dtype
            return total

        @staticmethod
        def backward(ctx: Any, scale: Any) -> Any:
            of_states, of_matrix = ctx.saved_tensors
            changed = None if of_matrix is None else (of_matrix * scale).to(ctx.dtype)
            return (of_states * scale).to(of_states.dtype), changed, None

    return HeadLoss


def _of_piece(states: Any, matrix: Any, targets: Any) -> tuple[Any, Any]:
    """The summed loss of some places, and the gradient of their logits in the type of the states."""
    named = (states @ matrix.T).float().log_softmax(1)
    learned, chosen = targets != IGNORED, targets.clamp(min=0).unsqueeze(1)
    loss = -(named.gather(1, chosen).squeeze(1) * learned).sum()
    gradient = named.exp_().scatter_add_(1, chosen, named.new_full(chosen.shape, -1))
    if not bool(learned.all()):
        gradient.mul_(learned.unsqueeze(1))
    return loss, gradient.to(states.dtype)
