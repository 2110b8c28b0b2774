"""Fine-tuning an encoder to tell labels apart, and asking it.

As in ``training``, the number of steps is fixed beforehand and the same input gives the same weights.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import torch_runtime
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import Course, OnStep, Part
from treadle.lm.learner import AdamW, all_of
from treadle.lm.schedule import learning_rate_at
from treadle.lm.team import Team
from treadle.lm.torch_runtime import Precision

_SORTED_TOGETHER = 50  # batches; sorting all by length would feed short texts first


@dataclass(frozen=True, slots=True)
class ClassifierSettings:
    """``max_length`` in tokens: longer texts are cut there, and counted."""

    learning_rate: float = 5e-5
    epochs: int = 3
    batch_size: int = 16
    max_length: int = 256
    warmup: float = 0.06
    clip: float = 1.0
    weight_decay: float = 0.01
    seed: int = 0
    threads: int | None = None
    micro: int | None = None
    precision: Precision = "auto"


@dataclass(frozen=True, slots=True)
class ClassifierResult:
    """``loss``: mean cross entropy in nats over the last tenth of the steps; ``truncated`` counts cut texts.
    ``resumed``: steps that came from a checkpoint; ``spikes``: those whose loss stood out."""

    labels: tuple[str, ...]
    steps: int
    truncated: int
    loss: float
    seconds: float
    micro: int = 0
    resumed: int = 0
    spikes: tuple[int, ...] = ()
    checkpoint_seconds: float = 0.0
    environment: dict[str, Any] = field(default_factory=dict)


def train_classifier(
    base: Path,
    out: Path,
    texts: Sequence[str],
    labels: Sequence[str],
    settings: ClassifierSettings,
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
    team: Team | None = None,
) -> ClassifierResult:
    """Train a head on the encoder ``base`` and the encoder with it; write a model folder to ``out``.

    Goes on from the newest of ``checkpoints`` where there is one; in a ``team`` each process calls it alike.
    ``UserError`` when there are fewer than two labels or the loss is no number.
    """
    try:
        torch_runtime.patient_threads()
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="train") from None
    names = tuple(sorted(set(labels)))
    if len(texts) != len(labels) or len(names) < 2:
        raise UserError(
            f"training: {len(texts)} texts with {len(names)} labels; expected at least two different labels"
        )
    _check(settings)
    team = team or Team()
    encode = Encoder(base, settings.max_length)
    rows, truncated = encode(texts)
    started = time.monotonic()
    with torch_runtime.session(settings.threads, settings.seed) as threads:
        device = torch_runtime.device()
        precision = torch_runtime.precision(settings.precision, device)

        def begun() -> Any:
            return torch_runtime.load(
                base,
                transformers.AutoModelForSequenceClassification,
                num_labels=len(names),
                id2label=dict(enumerate(names)),
                label2id={name: i for i, name in enumerate(names)},
            )

        model = begun().to(device).train()
        optimizer = AdamW(settings.learning_rate, settings.clip, settings.weight_decay, getattr(torch, precision))
        lessons = _Lessons(encode, rows, [names.index(label) for label in labels], settings)
        learner = team.learner(model, optimizer, all_of, lambda part: lessons.loss(model, part))
        course = Course(lessons, learner, lessons.rate, micro=settings.micro, team=team, device=device)
        progress = course.run(checkpoints, on_step)
        model = learner.finished(model, begun)
        if team.leads:
            torch_runtime.save(model.to("cpu"), base, out)
    environment: dict[str, Any] = {"threads": threads, "device": device, "precision": precision}
    environment |= {"torch": torch.__version__, "transformers": transformers.__version__}
    return ClassifierResult(
        labels=names,
        steps=progress.done,
        truncated=truncated,
        loss=progress.loss,
        seconds=time.monotonic() - started,
        micro=progress.micro,
        resumed=progress.resumed,
        spikes=tuple(progress.spikes),
        checkpoint_seconds=checkpoints.seconds if checkpoints is not None else 0.0,
        environment=environment,
    )


class _Lessons:
    """Texts with their labels, all of them once an epoch."""

    name = "training"
    seed: int | None = None  # what is drawn goes on from step to step

    def __init__(
        self, encode: Encoder, rows: Sequence[Sequence[int]], targets: Sequence[int], settings: ClassifierSettings
    ) -> None:
        self._encode, self._rows, self._targets, self._settings = encode, rows, targets, settings
        lengths = [len(row) for row in rows]
        self._batches = [
            batch
            for epoch in range(settings.epochs)
            for batch in batches_of_like_length(lengths, settings.batch_size, settings.seed + epoch)
        ]
        self.steps = len(self._batches)
        self.remedy = f"lower learning_rate (now {settings.learning_rate:g})"

    def size(self, step: int) -> int:
        return len(self._batches[step - 1])

    def part(self, step: int, first: int, last: int) -> Part:
        members = self._batches[step - 1][first:last]
        return Part(len(members), sum(len(self._rows[i]) for i in members), members)

    def loss(self, model: Any, part: Part) -> Any:
        from torch import tensor
        from torch.nn.functional import cross_entropy

        inputs = self._encode.batch([self._rows[i] for i in part.data])
        logits = model(**{name: value.to(model.device) for name, value in inputs.items()}).logits
        targets = tensor([self._targets[i] for i in part.data], device=logits.device)
        return cross_entropy(logits.float(), targets, reduction="sum")

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return learning_rate_at(step, self.steps, self._settings.learning_rate, self._settings.warmup)


def _check(settings: ClassifierSettings) -> None:
    for name in ("learning_rate", "epochs", "batch_size", "max_length"):
        value = getattr(settings, name)
        if not (0 < value < 1 if name == "learning_rate" else 1 <= value <= 1 << 20):
            raise UserError(f"develop.{name}: {value!r} is out of range")


class Classifier:
    """A trained classifier, loaded once. ``labels`` in the order of the probabilities."""

    def __init__(
        self,
        folder: Path,
        *,
        max_length: int = 256,
        batch_size: int = 32,
        threads: int | None = None,
        half: bool = False,
    ) -> None:
        """``half``: computed in bfloat16. ``UserError`` when the folder holds no sequence classifier."""
        try:
            import torch
            import transformers
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), extra="train") from None
        model = torch_runtime.load(folder, transformers.AutoModelForSequenceClassification)
        self.model = model.to(torch.bfloat16 if half else torch.float32).eval()
        self._encode = Encoder(folder, max_length)
        self._batch_size = batch_size
        self._threads = threads
        self.labels: tuple[str, ...] = tuple(name for _, name in sorted(self.model.config.id2label.items()))

    def predict(self, texts: Sequence[str]) -> list[list[float]]:
        """Probabilities, one row a text, summing to 1; batched by length, returned in the order given."""
        import torch

        rows, _ = self._encode(texts)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found: list[list[float]] = [[] for _ in rows]
        with torch_runtime.session(self._threads, 0), torch.inference_mode():
            for start in range(0, len(order), self._batch_size):
                batch = order[start : start + self._batch_size]
                logits = self.model(**self._encode.batch([rows[i] for i in batch])).logits
                for i, row in zip(batch, logits.double().softmax(-1).tolist(), strict=True):
                    found[i] = row
        return found


class Encoder:
    """Texts to padded id tensors with a folder's own tokenizer, its beginning and end tokens included."""

    def __init__(self, folder: Path, max_length: int) -> None:
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise UserError(f"{folder}: no tokenizer.json; expected a model folder as save_pretrained writes it")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.encode_special_tokens = True  # a text that spells [SEP] is still one text
        self._padding = next((i for i in map(self._tokenizer.token_to_id, ("[PAD]", "<pad>")) if i is not None), 0)

    def __call__(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Ids of each text, and how many texts were cut."""
        encodings = self._tokenizer.encode_batch(list(texts))
        return [e.ids for e in encodings], sum(bool(e.overflowing) for e in encodings)

    def batch(self, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Rows of ids as ``input_ids`` and ``attention_mask``, both of shape (rows, longest)."""
        import torch

        width = max(map(len, rows))
        ids = [[*row, *[self._padding] * (width - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def batches_of_like_length(lengths: Sequence[int], size: int, seed: int) -> list[list[int]]:
    """All indices once, in random order but with rows of like length together, so that little is padding."""
    draw = random.Random(seed)  # noqa: S311 - an order, not a secret
    order = list(range(len(lengths)))
    draw.shuffle(order)
    stretch = size * _SORTED_TOGETHER
    batches: list[list[int]] = []
    for start in range(0, len(order), stretch):
        near = sorted(order[start : start + stretch], key=lambda i: lengths[i])
        batches += [near[at : at + size] for at in range(0, len(near), size)]
    draw.shuffle(batches)
    return batches
