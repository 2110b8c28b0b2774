"""Passes over rows of tokens that train a head on an encoder, and the encoder with it.

As in ``training``, the number of steps is fixed beforehand and the same input gives the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import torch_runtime
from treadle.lm.classification import batches_of_like_length
from treadle.lm.fitting import FitSettings, Fitted, OnStep
from treadle.lm.learner import AdamW, Learner
from treadle.lm.schedule import learning_rate_at

_BATCH = 16
_WARMUP = 0.06
_CLIP = 1.0
_WEIGHT_DECAY = 0.01

Loss = Callable[[Any, Sequence[int]], Any]  # of the model on the rows at these places


def train_epochs(
    base: Path,
    out: Path,
    head: str,
    lengths: Sequence[int],
    loss_of: Loss,
    settings: FitSettings,
    on_step: OnStep | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    noted: Mapping[str, Any] | None = None,
    threads: int | None = None,
) -> Fitted:
    """Put the ``head`` (a class of transformers') on ``base``, train both, write a model folder to ``out``.

    ``lengths``: tokens of each row. ``config`` is what the head needs to know, ``noted`` what else stands in the
    model's config, with the ``window`` that it learned in. ``UserError`` for settings out of range and when the loss
    is no number.
    """
    try:
        torch_runtime.patient_threads()
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="train") from None
    if not lengths:
        raise UserError("training: no examples; the training split is empty")
    if not (0 < settings.learning_rate < 1 and 1 <= settings.epochs <= 1 << 20):
        raise UserError(f"develop: learning_rate {settings.learning_rate!r} or epochs {settings.epochs!r} out of range")
    with torch_runtime.session(threads, settings.seed) as used:
        device = torch_runtime.device()
        precision = torch_runtime.precision("auto", device)
        model = torch_runtime.load(base, getattr(transformers, head), **(config or {})).to(device).train()
        model.config.update({"window": settings.max_length, **(noted or {})})
        optimizer = AdamW(settings.learning_rate, _CLIP, _WEIGHT_DECAY, getattr(torch, precision))
        learner = Learner(list(model.parameters()), optimizer)
        losses = _passes(model, learner, lengths, loss_of, settings, on_step)
        learner.finish()
        torch_runtime.save(model.to("cpu"), base, out)
    tail = losses[-max(1, len(losses) // 10) :]
    environment: dict[str, Any] = {"threads": used, "device": device, "precision": precision}
    environment |= {"torch": torch.__version__, "transformers": transformers.__version__}
    return Fitted(sum(tail) / len(tail), len(losses), 0, environment)


def _passes(
    model: Any,
    learner: Learner,
    lengths: Sequence[int],
    loss_of: Loss,
    settings: FitSettings,
    on_step: OnStep | None,
) -> list[float]:
    """All epochs; returns the loss of each step."""
    epochs = range(settings.epochs)
    batches = [b for epoch in epochs for b in batches_of_like_length(lengths, _BATCH, settings.seed + epoch)]
    losses: list[float] = []
    for step, batch in enumerate(batches, 1):
        loss = loss_of(model, batch)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise UserError(
                f"training: the loss became {losses[-1]} at step {step} of {len(batches)}; "
                f"lower learning_rate (now {settings.learning_rate:g})"
            )
        loss.backward()
        learner.step(learning_rate_at(step, len(batches), settings.learning_rate, _WARMUP))
        if on_step is not None:
            on_step(step, len(batches), losses[-1])
    return losses
