"""Direct preference optimization (Rafailov et al., arXiv:2305.18290): of two answers to one question, the one that is
wanted becomes more probable than the other, measured from what the model thought of both before.

The loss of a pair is ``-log sigmoid(beta * ((c - c0) - (r - r0)))`` with the log-probabilities of the chosen and the
rejected answer, now and before. Those before are computed once, so no second model lies in memory. As in ``training``,
the number of steps is fixed beforehand and the same input gives the same weights.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import torch_runtime
from treadle.lm.answer_pairs import Pair, log_ratio, preference_loss, usable_pairs
from treadle.lm.learner import AdamW, Learner, LoraLearner
from treadle.lm.schedule import learning_rate_at
from treadle.lm.torch_runtime import Precision


@dataclass(frozen=True, slots=True)
class PreferenceSettings:
    """One optimizer step sees ``batch`` pairs. ``tokens``, of both answers with their questions, goes before
    ``epochs``."""

    beta: float = 0.1
    method: Literal["full", "lora"] = "full"
    learning_rate: float = 2e-5
    epochs: int = 1
    tokens: int | None = None
    batch: int = 8
    width: int = 256
    warmup: float = 0.1
    clip: float = 1.0
    seed: int = 0
    threads: int | None = None
    precision: Precision = "auto"
    save_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    lora_rank: int = 16
    lora_alpha: float = 32.0


@dataclass(frozen=True, slots=True)
class PreferenceStep:
    """One finished step. ``margin``: mean of ``beta * ((c - c0) - (r - r0))``; ``accuracy``: share above 0."""

    step: int
    steps: int
    loss: float
    margin: float
    accuracy: float
    learning_rate: float
    tokens: int
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class PreferenceResult:
    """Means over the last tenth of the steps; ``held_out`` of pairs that were not learned from, where there are any.

    ``pairs_seen``: sorted indices of those the weights depend on; ``dropped`` those left out, by rule.
    """

    steps: int
    tokens: int
    pairs_seen: tuple[int, ...]
    dropped: dict[str, tuple[int, ...]]
    loss: float
    margin: float
    accuracy: float
    held_out: tuple[float, float] | None
    seconds: float
    environment: dict[str, Any] = field(default_factory=dict)


OnStep = Callable[[PreferenceStep], None]


def train_on_preferences(
    base: Path,
    out: Path,
    pairs: Sequence[Pair],
    settings: PreferenceSettings,
    on_step: OnStep | None = None,
    *,
    held_out: Sequence[Pair] = (),
) -> PreferenceResult:
    """Train the model folder ``base`` on the pairs and write the result to the folder ``out``, whole or not at all.

    Raises ``UserError`` for settings out of range, pairs that all drop out, and a loss that is no number.
    """
    try:
        return _train(base, out, pairs, settings, on_step, held_out)
    finally:
        torch_runtime.release_memory()


def _train(
    base: Path,
    out: Path,
    pairs: Sequence[Pair],
    settings: PreferenceSettings,
    on_step: OnStep | None,
    held_out: Sequence[Pair],
) -> PreferenceResult:
    try:
        torch_runtime.patient_threads()
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="train") from None
    _check(settings)
    usable, dropped = usable_pairs(pairs, settings.width)
    if not usable:
        counts = ", ".join(f"{len(found)} {rule}" for rule, found in dropped.items()) or "none given"
        raise UserError(
            f"preferences: no pair is left ({counts}); raise develop.max_length above {settings.width} or add data"
        )
    judged = [held_out[place] for place in usable_pairs(held_out, settings.width)[0]]
    started = time.monotonic()
    with torch_runtime.session(settings.threads, settings.seed) as threads:
        device = torch_runtime.device()
        precision = torch_runtime.precision(settings.precision, device)
        attention = torch_runtime.attention(device)
        model = torch_runtime.load(base, transformers.AutoModelForCausalLM, attn_implementation=attention)
        model = model.to(device).eval()  # dropout would make the model differ from itself
        optimizer = AdamW(settings.learning_rate, settings.clip, 0.0, getattr(torch, precision))
        if settings.method == "lora":
            learner: Learner = LoraLearner(model, optimizer, rank=settings.lora_rank, alpha=settings.lora_alpha)
        else:
            learner = Learner([p for p in model.parameters() if p.requires_grad], optimizer)
        batches = list(_batches(pairs, usable, settings))
        seen = sorted({place for batch in batches for place in batch})
        before = dict(zip(seen, _log_ratios(model, [pairs[place] for place in seen], settings), strict=True))
        before_judged = _log_ratios(model, judged, settings)
        steps = _run(model, learner, pairs, batches, before, settings, on_step)
        found = _rewards(before_judged, _log_ratios(model, judged, settings), settings.beta) if judged else None
        learner.finish()
        torch_runtime.save(model.to("cpu", getattr(torch, settings.save_dtype)), base, out)
    tail = steps[-max(1, len(steps) // 10) :]
    environment: dict[str, Any] = {"threads": threads, "device": device, "precision": precision}
    environment |= {"torch": torch.__version__, "transformers": transformers.__version__}
    return PreferenceResult(
        steps=len(steps),
        tokens=steps[-1].tokens,
        pairs_seen=tuple(seen),
        dropped=dropped,
        loss=sum(step.loss for step in tail) / len(tail),
        margin=sum(step.margin for step in tail) / len(tail),
        accuracy=sum(step.accuracy for step in tail) / len(tail),
        held_out=found,
        seconds=time.monotonic() - started,
        environment=environment,
    )


def _log_ratios(model: Any, pairs: Sequence[Pair], settings: PreferenceSettings) -> list[float]:
    """The same without a gradient, for as many pairs as one likes."""
    import torch

    found: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(pairs), settings.batch):
            found += log_ratio(model, pairs[start : start + settings.batch], settings.width).tolist()
    return found


def _rewards(before: Sequence[float], now: Sequence[float], beta: float) -> tuple[float, float]:
    """Mean reward margin, and the share of pairs where it is above 0."""
    margins = [beta * (one - other) for one, other in zip(now, before, strict=True)]
    return sum(margins) / len(margins), sum(margin > 0 for margin in margins) / len(margins)


def _run(
    model: Any,
    learner: Learner,
    pairs: Sequence[Pair],
    batches: Sequence[Sequence[int]],
    before: dict[int, float],
    settings: PreferenceSettings,
    on_step: OnStep | None,
) -> list[PreferenceStep]:
    done: list[PreferenceStep] = []
    tokens, started = 0, time.monotonic()
    for step, batch in enumerate(batches, 1):
        chosen = [pairs[place] for place in batch]
        losses, margins = preference_loss(
            model, chosen, [before[place] for place in batch], settings.beta, settings.width
        )
        loss = losses.mean()
        value = float(loss.detach())
        rate = learning_rate_at(step, len(batches), settings.learning_rate, settings.warmup)
        if not math.isfinite(value):
            raise UserError(
                f"preferences: the loss became {value} at step {step} of {len(batches)}; "
                f"lower develop.prefer.learning_rate (now {settings.learning_rate:g}) or beta"
            )
        loss.backward()
        learner.step(rate)
        tokens += sum(pair.tokens for pair in chosen)
        told = PreferenceStep(
            step=step,
            steps=len(batches),
            loss=value,
            margin=float(margins.mean()),
            accuracy=float((margins > 0).float().mean()),
            learning_rate=rate,
            tokens=tokens,
            tokens_per_second=tokens / max(time.monotonic() - started, 1e-9),
        )
        done.append(told)
        if on_step is not None:
            on_step(told)
    return done


def _batches(pairs: Sequence[Pair], usable: Sequence[int], settings: PreferenceSettings) -> Iterator[list[int]]:
    """Every pair once an epoch, in an order drawn anew each; as many epochs as there shall be, or tokens last."""
    tokens, epoch = 0, 0
    while settings.tokens is not None or epoch < settings.epochs:
        order = list(usable)
        random.Random(f"{settings.seed} {epoch}").shuffle(order)  # noqa: S311 - an order, not a secret
        for start in range(0, len(order), settings.batch):
            batch = order[start : start + settings.batch]
            yield batch
            tokens += sum(pairs[place].tokens for place in batch)
            if settings.tokens is not None and tokens >= settings.tokens:
                return
        epoch += 1


def _check(settings: PreferenceSettings) -> None:
    limits = {
        "beta": 0 < settings.beta <= 100,
        "learning_rate": 0 < settings.learning_rate < 1,
        "epochs": 1 <= settings.epochs <= 1 << 20,
        "batch": 1 <= settings.batch <= 4096,
    }
    for name, fine in limits.items():
        if not fine:
            raise UserError(f"develop.prefer.{name}: {getattr(settings, name)!r} is out of range")
