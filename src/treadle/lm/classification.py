"""Fine-tuning an encoder to tell labels apart, and asking it.

As in ``training``, the number of steps is fixed beforehand and the same input gives the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import torch_runtime
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import OnStep
from treadle.lm.epochs import Epochs, Outcome, Piece, in_batches, passes, teaching
from treadle.lm.fitting import FitSettings
from treadle.lm.model_folder import check_length
from treadle.lm.taught import teach
from treadle.lm.team import Team, maker_for


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
    figures: dict[str, float] = field(default_factory=dict)


def train_classifier(
    base: Path,
    out: Path,
    texts: Sequence[str],
    labels: Sequence[str],
    settings: FitSettings,
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
    team: Team | None = None,
) -> ClassifierResult:
    """Train a head on the encoder ``base`` and the encoder with it; write a model folder to ``out``.

    Goes on from the newest of ``checkpoints`` where there is one; in a ``team`` each process calls it alike. Samples of
    ``looks`` are texts and labels. ``UserError`` when there are fewer than two labels or the loss is no number.
    """
    _, transformers = torch_runtime.libraries()
    names = tuple(sorted(set(labels)))
    if len(texts) != len(labels) or len(names) < 2:
        raise UserError(
            f"training: {len(texts)} texts with {len(names)} labels; expected at least two different labels"
        )
    settings.check()
    make = maker_for(settings, team or Team())
    check_length(base, "develop.max_length", settings.max_length)
    judged = [each for each in zip(*settings.looks.samples, strict=True) if each[1] in names] if settings.looks else []
    encode = Encoder(base, settings.max_length)
    rows, truncated = encode(texts)
    rows += encode([text for text, _ in judged])[0]
    targets = [names.index(label) for label in (*labels, *(label for _, label in judged))]

    def outcome(model: Any, piece: Piece) -> Outcome:
        from torch import tensor
        from torch.nn.functional import cross_entropy

        inputs = encode.batch([rows[i] for i in piece.members])
        logits = model(**{name: value.to(model.device) for name, value in inputs.items()}).logits
        wanted = tensor([targets[i] for i in piece.members], device=logits.device)
        loss = cross_entropy(logits.float(), wanted, reduction="sum")
        return Outcome(loss, lambda: zip(logits.argmax(-1).tolist(), wanted.tolist(), strict=True))

    how = teaching(settings)
    lengths = [len(row) for row in rows]
    lessons = Epochs(
        outcome,
        passes(lengths[: len(texts)], settings.batch_size, settings),
        lengths,
        how,
        held_out=in_batches(len(texts), len(rows), settings.batch_size),
        metrics=("accuracy", "f1"),
    )

    def begun() -> Any:
        return torch_runtime.load(
            base,
            transformers.AutoModelForSequenceClassification,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
        )

    taught = teach(
        base,
        out,
        begun,
        lambda _model: lessons,
        how,
        make=make,
        texts=rows,
        looks=settings.looks,
        on_step=on_step,
        checkpoints=checkpoints,
        team=team,
    )
    now = taught.progress
    return ClassifierResult(
        labels=names,
        steps=now.done,
        truncated=truncated,
        loss=now.loss,
        seconds=taught.seconds,
        micro=now.micro,
        resumed=now.resumed,
        spikes=tuple(now.spikes),
        checkpoint_seconds=taught.checkpoint_seconds,
        environment=taught.environment,
        figures=taught.figures,
    )


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
