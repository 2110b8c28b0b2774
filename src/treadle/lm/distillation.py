"""A smaller classifier that learns from a larger one, by DistilBERT's recipe (Sanh et al., arXiv:1910.01108).

The student begins as some of the teacher's layers. It learns from what the teacher thinks of every label (soft
targets at a temperature), from the labels themselves, and from the direction of the teacher's last hidden states.
As in ``training``, the number of steps is fixed beforehand and the same input gives the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.classification import Encoder
from treadle.lm.course import OnStep
from treadle.lm.epochs import Epochs, Outcome, Piece, fitted, in_batches, passes
from treadle.lm.fewer_layers import kept_layers, with_layers
from treadle.lm.fitting import Fitted
from treadle.lm.held_out import Looks
from treadle.lm.model_folder import check_length
from treadle.lm.taught import Teaching, teach
from treadle.lm.team import Team
from treadle.lm.torch_runtime import Precision

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
    micro: int | None = None
    precision: Precision = "auto"
    system_prompt: str | None = None
    looks: Looks | None = None

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

    def at(self, samples: Callable[[Any], Any]) -> DistillSettings:
        """As ``FitSettings.at``."""
        return self if self.looks is None else replace(self, looks=self.looks.of(samples(self.looks.samples)))

    def teaching(self, *, weight_decay: float) -> Teaching:
        """How the student is taught."""
        return Teaching(
            self.learning_rate,
            weight_decay=weight_decay,
            seed=self.seed,
            threads=self.threads,
            micro=self.micro,
            precision=self.precision,
        )


def distill_classifier(
    teacher: Path,
    out: Path,
    texts: Sequence[str],
    labels: Sequence[str],
    settings: DistillSettings,
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
    team: Team | None = None,
) -> Fitted:
    """Train a student of the classifier in ``teacher``; write a model folder to ``out``, whole or not at all.

    Checkpoints and teams as in ``teach``; samples of ``looks`` are texts and labels. ``UserError`` for a label that the
    teacher does not know, no texts, and a loss that is no number.
    """
    _, transformers = torch_runtime.libraries()
    settings.check()
    check_length(teacher, "develop.max_length", settings.max_length)
    encode = Encoder(teacher, settings.max_length)
    rows, truncated = encode(texts)
    large = torch_runtime.load(teacher, transformers.AutoModelForSequenceClassification)
    known = large.config.label2id
    targets = _targets(labels, known)
    judged = [each for each in zip(*settings.looks.samples, strict=True) if each[1] in known] if settings.looks else []
    rows += encode([text for text, _ in judged])[0]
    targets += [known[label] for _, label in judged]
    kept = kept_layers(large, settings.layers)

    def outcome(small: Any, piece: Piece) -> Outcome:
        from torch import tensor

        given = encode.batch([rows[i] for i in piece.members])
        inputs = {name: value.to(small.device) for name, value in given.items()}
        wanted = tensor([targets[i] for i in piece.members], device=small.device)
        # The direction of hidden states is a mean over the tokens of the batch, whatever part of it this is.
        tokens = sum(len(rows[i]) for i in piece.batch) / len(piece.batch)
        loss, logits = student_loss(large, small, inputs, wanted, settings, tokens)
        return Outcome(loss, lambda: zip(logits.argmax(-1).tolist(), wanted.tolist(), strict=True))

    how = settings.teaching(weight_decay=_WEIGHT_DECAY)
    lengths = [len(row) for row in rows]
    lessons = Epochs(
        outcome,
        passes(lengths[: len(texts)], settings.batch_size, settings),
        lengths,
        how,
        held_out=in_batches(len(texts), len(rows), settings.batch_size),
        metrics=("accuracy", "f1"),
        name="distillation",
        setting="develop.distill.learning_rate",
    )

    def lessons_of(small: Any) -> Epochs:
        taught_by(large, small, how)
        return lessons

    carried: Any = {"on_step": on_step, "checkpoints": checkpoints, "team": team}
    begun = partial(with_layers, large, kept)
    taught = teach(teacher, out, begun, lessons_of, how, texts=rows, looks=settings.looks, **carried)
    return fitted(taught, truncated, layers=kept)


def taught_by(large: Any, small: Any, how: Teaching) -> None:
    """Put the teacher beside its student, in the type that both compute in."""
    import torch

    dtype = getattr(torch, torch_runtime.precision(how.precision, small.device.type))
    large.to(small.device).eval()
    for parameter in large.parameters():  # only those: a rotary embedding's buffer would lose its digits
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(dtype)


def student_loss(
    large: Any, small: Any, inputs: dict[str, Any], targets: Any, settings: DistillSettings, tokens: float
) -> tuple[Any, Any]:
    """Weighed mean of the three losses, summed over some texts, a scalar with its gradient; and the student's logits.

    ``tokens``: of a text on average, over which the third is a mean.
    """
    import torch
    from torch.nn.functional import cosine_similarity, cross_entropy

    with torch.no_grad():
        told = large(**inputs, output_hidden_states=True)
    found = small(**inputs, output_hidden_states=True)
    mask = inputs["attention_mask"].bool()
    soft = soft_loss(found.logits, told.logits, settings.temperature).sum()
    hard = cross_entropy(found.logits.float(), targets, reduction="sum")
    near = cosine_similarity(found.hidden_states[-1][mask].float(), told.hidden_states[-1][mask].float(), dim=-1)
    weights = settings.soft + settings.hard + settings.cosine
    far = (1 - near).sum() / tokens
    return (settings.soft * soft + settings.hard * hard + settings.cosine * far) / weights, found.logits


def soft_loss(found: Any, told: Any, temperature: float) -> Any:
    """Kullback-Leibler divergence of the student's distributions from the teacher's at a temperature, in nats, times
    its square, so that gradients keep their size (Hinton et al., arXiv:1503.02531); from (n, labels) to (n,)."""
    from torch.nn.functional import kl_div

    student = (found.float() / temperature).log_softmax(-1)
    teacher = (told.float() / temperature).log_softmax(-1)
    return kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * temperature**2


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
