"""A smaller generator that learns from a larger one with the same vocabulary: from the teacher's distribution over the
next token at every place of an answer, and from the answer itself.

Packed and fixed in its steps as ``training`` is: the same input gives the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import torch_runtime
from treadle.lm.distillation import DistillSettings, soft_loss
from treadle.lm.fewer_layers import blocks, evenly, with_layers
from treadle.lm.fitting import Fitted, OnStep
from treadle.lm.learner import AdamW, Learner
from treadle.lm.packing import TokenizedExample, lay_out, pack
from treadle.lm.schedule import learning_rate_at
from treadle.lm.training import logits_at

_ROWS = 3
_WARMUP = 0.06
_CLIP = 1.0


def distill_generator(
    teacher: Path,
    out: Path,
    examples: Sequence[TokenizedExample],
    settings: DistillSettings,
    on_step: OnStep | None = None,
) -> Fitted:
    """Train a student of the generator in ``teacher``; write a model folder to ``out``, whole or not at all.

    ``truncated`` of what comes back counts the examples left out as too long. ``UserError`` when none is left, and
    when the loss is no number.
    """
    try:
        torch_runtime.patient_threads()
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="train") from None
    settings.check()
    rows = [
        packing.rows
        for packing in (
            pack(examples, width=settings.max_length, seed=settings.seed + epoch) for epoch in range(settings.epochs)
        )
    ]
    if not rows[0]:
        raise UserError(f"distillation: no example is left; raise develop.max_length above {settings.max_length}")
    batches = [epoch[at : at + _ROWS] for epoch in rows for at in range(0, len(epoch), _ROWS)]
    with torch_runtime.session(settings.threads, settings.seed) as threads:
        device = torch_runtime.device()
        precision = torch_runtime.precision(settings.precision, device)
        attention = torch_runtime.attention(device)
        large = torch_runtime.load(teacher, transformers.AutoModelForCausalLM, attn_implementation=attention)
        large = large.to(device).eval()
        count = blocks(large)[1]
        kept = evenly(count, settings.layers if settings.layers is not None else max(1, count // 2))
        small = with_layers(large, kept).train()
        small.set_attn_implementation(attention)
        large = large.to(getattr(torch, precision))
        learner = Learner(
            [p for p in small.parameters() if p.requires_grad],
            AdamW(settings.learning_rate, _CLIP, 0.0, getattr(torch, precision)),
        )
        losses = _passes(large, small, learner, examples, batches, settings, on_step)
        learner.finish()
        torch_runtime.save(small.to("cpu", torch.bfloat16), teacher, out)
    tail = losses[-max(1, len(losses) // 10) :]
    environment: dict[str, Any] = {"threads": threads, "device": device, "precision": precision, "layers": kept}
    environment |= {"torch": torch.__version__, "transformers": transformers.__version__}
    left_out = sum(len(example.ids) > settings.max_length for example in examples)
    return Fitted(sum(tail) / len(tail), len(losses), left_out, environment)


def generator_loss(
    large: Any,
    small: Any,
    examples: Sequence[TokenizedExample],
    rows: Sequence[Sequence[int]],
    settings: DistillSettings,
) -> Any:
    """Weighed mean of soft and hard loss over the answer tokens of ``rows``, a scalar with its gradient."""
    import torch

    batch = lay_out(examples, rows, width=settings.max_length)
    targets = torch.tensor(batch.targets, device=small.device).flatten()
    wanted = (targets >= 0).nonzero().squeeze(1)
    with torch.no_grad():
        told = logits_at(large, batch, wanted)
    found = logits_at(small, batch, wanted)
    soft = soft_loss(found, told, settings.temperature).mean()
    hard = torch.nn.functional.cross_entropy(found.float(), targets[wanted])
    return (settings.soft * soft + settings.hard * hard) / (settings.soft + settings.hard)


def _passes(
    large: Any,
    small: Any,
    learner: Learner,
    examples: Sequence[TokenizedExample],
    batches: Sequence[Sequence[Sequence[int]]],
    settings: DistillSettings,
    on_step: OnStep | None,
) -> list[float]:
    losses: list[float] = []
    for step, rows in enumerate(batches, 1):
        loss = generator_loss(large, small, examples, rows, settings)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise UserError(
                f"distillation: the loss became {losses[-1]} at step {step} of {len(batches)}; "
                f"lower develop.distill.learning_rate (now {settings.learning_rate:g})"
            )
        loss.backward()
        learner.step(learning_rate_at(step, len(batches), settings.learning_rate, _WARMUP))
        if on_step is not None:
            on_step(step, len(batches), losses[-1])
    return losses
