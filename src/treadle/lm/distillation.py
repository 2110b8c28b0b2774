"""A smaller classifier that learns from a larger one, by DistilBERT's recipe (Sanh et al., arXiv:1910.01108).

The student begins as some of the teacher's layers. It learns from what the teacher thinks of every label (soft
targets at a temperature), from the labels themselves, and from the direction of the teacher's last hidden states.
As in ``training``, the number of steps is fixed beforehand and the same input gives the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import torch_runtime
from treadle.lm.classification import Encoder, batches_of_like_length
from treadle.lm.fewer_layers import blocks, evenly, with_layers
from treadle.lm.fitting import Fitted, OnStep
from treadle.lm.learner import AdamW, Learner
from treadle.lm.schedule import learning_rate_at
from treadle.lm.torch_runtime import Precision

_WARMUP = 0.06
_CLIP = 1.0
_WEIGHT_DECAY = 0.01


@dataclass(frozen=True, slots=True)
class DistillSettings:
    """``layers``: how many the student has, half of the teacher's where it is None. ``soft``, ``hard`` and ``cosine``
    weigh the three losses as DistilBERT does. ``system_prompt`` is for generators."""

    learning_rate: float
    epochs: int
    max_length: int
    seed: int
    layers: int | None = None
    temperature: float = 2.0
    soft: float = 5.0
    hard: float = 2.0
    cosine: float = 1.0
    batch_size: int = 16
    threads: int | None = None
    precision: Precision = "auto"
    system_prompt: str | None = None

    def check(self) -> None:
        """Raises ``UserError`` for what is out of range."""
        limits = {
            "learning_rate": 0 < self.learning_rate < 1,
            "epochs": 1 <= self.epochs <= 1 << 20,
            "temperature": 0 < self.temperature <= 100,
        }
        for name, fine in limits.items():
            if not fine:
                raise UserError(f"develop.distill.{name}: {getattr(self, name)!r} is out of range")


def distill_classifier(
    teacher: Path,
    out: Path,
    texts: Sequence[str],
    labels: Sequence[str],
    settings: DistillSettings,
    on_step: OnStep | None = None,
) -> Fitted:
    """Train a student of the classifier in ``teacher``; write a model folder to ``out``, whole or not at all.

    ``UserError`` for a label that the teacher does not know, no texts, and a loss that is no number.
    """
    try:
        torch_runtime.patient_threads()
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="train") from None
    settings.check()
    encode = Encoder(teacher, settings.max_length)
    rows, truncated = encode(texts)
    with torch_runtime.session(settings.threads, settings.seed) as threads:
        device = torch_runtime.device()
        precision = torch_runtime.precision(settings.precision, device)
        large = torch_runtime.load(teacher, transformers.AutoModelForSequenceClassification).to(device).eval()
        targets = _targets(labels, large.config.label2id)
        count = blocks(large)[1]
        kept = evenly(count, settings.layers if settings.layers is not None else max(1, count // 2))
        small = with_layers(large, kept).train()
        large = large.to(getattr(torch, precision))
        optimizer = AdamW(settings.learning_rate, _CLIP, _WEIGHT_DECAY, getattr(torch, precision))
        learner = Learner(list(small.parameters()), optimizer)
        losses = _passes(large, small, learner, encode, rows, targets, settings, on_step)
        learner.finish()
        torch_runtime.save(small.to("cpu"), teacher, out)
    tail = losses[-max(1, len(losses) // 10) :]
    environment: dict[str, Any] = {"threads": threads, "device": device, "precision": precision, "layers": kept}
    environment |= {"torch": torch.__version__, "transformers": transformers.__version__}
    return Fitted(sum(tail) / len(tail), len(losses), truncated, environment)


def student_loss(large: Any, small: Any, inputs: dict[str, Any], targets: Any, settings: DistillSettings) -> Any:
    """Weighed mean of the three losses on one batch, a scalar with its gradient."""
    import torch
    from torch.nn.functional import cosine_similarity, cross_entropy

    with torch.no_grad():
        told = large(**inputs, output_hidden_states=True)
    found = small(**inputs, output_hidden_states=True)
    mask = inputs["attention_mask"].bool()
    soft = soft_loss(found.logits, told.logits, settings.temperature).mean()
    hard = cross_entropy(found.logits.float(), targets)
    near = cosine_similarity(found.hidden_states[-1][mask].float(), told.hidden_states[-1][mask].float(), dim=-1)
    weights = settings.soft + settings.hard + settings.cosine
    return (settings.soft * soft + settings.hard * hard + settings.cosine * (1 - near).mean()) / weights


def soft_loss(found: Any, told: Any, temperature: float) -> Any:
    """Kullback-Leibler divergence of the student's distributions from the teacher's at a temperature, in nats, times
    its square, so that gradients keep their size (Hinton et al., arXiv:1503.02531); from (n, labels) to (n,)."""
    from torch.nn.functional import kl_div

    student = (found.float() / temperature).log_softmax(-1)
    teacher = (told.float() / temperature).log_softmax(-1)
    return kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * temperature**2


def _passes(
    large: Any,
    small: Any,
    learner: Learner,
    encode: Encoder,
    rows: Sequence[Sequence[int]],
    targets: Sequence[int],
    settings: DistillSettings,
    on_step: OnStep | None,
) -> list[float]:
    """All epochs; returns the loss of each step."""
    import torch

    lengths = [len(row) for row in rows]
    epochs = range(settings.epochs)
    batches = [b for each in epochs for b in batches_of_like_length(lengths, settings.batch_size, settings.seed + each)]
    losses: list[float] = []
    for step, batch in enumerate(batches, 1):
        inputs = {name: value.to(small.device) for name, value in encode.batch([rows[i] for i in batch]).items()}
        wanted = torch.tensor([targets[i] for i in batch], device=small.device)
        loss = student_loss(large, small, inputs, wanted, settings)
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


def _targets(labels: Sequence[str], known: dict[str, int]) -> list[int]:
    if not labels:
        raise UserError("distillation: no examples; the training split is empty")
    strange = sorted(set(labels) - set(known))
    if strange:
        raise UserError(
            f"distillation: the teacher does not know the label {strange[0]!r} ({len(strange)} such labels); "
            "take a teacher that was trained on these, or leave develop.distill.teacher out"
        )
    return [known[label] for label in labels]
