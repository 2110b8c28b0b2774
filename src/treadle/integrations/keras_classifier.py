"""``develop.fit: keras``: a classifier over BERT, built of layers of Keras and trained by its ``fit``.

The first weights are those that transformers loads, and the trained ones go back into its model, so the folder serves
as any other. Before training and after it both compute the same texts, and have to agree. Settings, order of the
batches and learning rate are those of ``lm.classification``: the same input gives the same weights.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras reads it once, when it is first imported
try:
    import keras
except ImportError:
    from treadle.core.errors import MissingExtra

    raise MissingExtra("keras", extra="keras") from None

from treadle.core.errors import MissingExtra, TreadleError, UserError
from treadle.integrations.keras_bert import build, fill, named_weights, turned
from treadle.lm import torch_runtime
from treadle.lm.classification import Encoder
from treadle.lm.epochs import batches_of_like_length
from treadle.lm.fitting import FitSettings, Fitted, OnStep
from treadle.lm.model_folder import check_length
from treadle.lm.schedule import learning_rate_at
from treadle.text.dataset import Example

TOLERANCE = 1e-4  # of a logit, between Keras and transformers
_COMPARED = 8  # texts
_BATCH = FitSettings().batch_size


def fit(base: Path, out: Path, examples: Sequence[Example], settings: FitSettings, on_step: OnStep) -> Fitted:
    """Train on texts with labels, from the BERT in ``base`` to a model folder ``out``.

    ``UserError`` where the examples have no labels, or fewer than two, the base is no BERT, or the loss is no number.
    """
    try:
        torch_runtime.patient_threads()
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="train") from None
    if keras.backend.backend() != "torch":
        raise UserError(f"develop.fit: keras computes with {keras.backend.backend()} here; set KERAS_BACKEND=torch")
    names = sorted({str(example.label) for example in examples if example.label is not None})
    if any(example.label is None for example in examples) or len(names) < 2:
        raise UserError("develop.fit: keras learns from texts with two labels or more (task: classify)")
    check_length(base, "develop.max_length", settings.max_length)
    how = FitSettings()
    encode = Encoder(base, settings.max_length)
    rows, truncated = encode([example.text for example in examples])
    targets = [names.index(str(example.label)) for example in examples]
    batches = _Batches(encode, rows, targets, range(settings.seed, settings.seed + settings.epochs))
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: place for place, name in enumerate(names)}}
    with torch_runtime.session(None, settings.seed) as threads:
        model = torch_runtime.load(
            base, transformers.AutoModelForSequenceClassification, num_labels=len(names), **labels
        ).eval()
        network = build(model.config, settings.seed)
        to_keras(model, network)
        compared = batches.inputs(rows[:_COMPARED])
        _agree(model, network, compared)
        steps = _Steps(settings.learning_rate, len(batches), how.warmup, on_step)
        network.compile(
            optimizer=keras.optimizers.AdamW(
                settings.learning_rate, weight_decay=how.weight_decay, epsilon=1e-8, global_clipnorm=how.clip
            ),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )
        network.fit(batches, shuffle=False, verbose=0, callbacks=[steps])
        to_transformers(network, model)
        _agree(model, network, compared)
        torch_runtime.save(model, base, out)
    tail = steps.losses[-max(1, len(steps.losses) // 10) :]
    environment = {"threads": threads, "keras": keras.__version__, "torch": torch.__version__}
    return Fitted(sum(tail) / len(tail), len(steps.losses), truncated, environment)


fit.tasks = ("classify",)  # type: ignore[attr-defined]  # what it can do, said before anything runs


def to_keras(model: Any, network: Any) -> None:
    """Copy all weights of a classifier of transformers into one that ``build`` made of its configuration."""
    fill(network, {name: value.detach().cpu().numpy() for name, value in model.named_parameters()})


def to_transformers(network: Any, model: Any) -> None:
    """Copy all weights back."""
    import torch

    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, variable in named_weights(network):
            parameter = own[name]
            value = keras.ops.convert_to_numpy(variable)
            shape = tuple(parameter.shape)
            value = value.reshape(shape[::-1]).T if turned(name, parameter) else value.reshape(shape)
            parameter.copy_(torch.tensor(value))


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """The examples of all epochs, in the order in which ``lm.classification`` has them.

    One pass over all: what Keras reads ahead at an epoch's end would be of the order before.
    """

    def __init__(self, encode: Encoder, rows: Sequence[Sequence[int]], targets: Sequence[int], epochs: range) -> None:
        super().__init__()
        self._encode, self._rows, self._targets = encode, rows, targets
        lengths = [len(row) for row in rows]
        self._order = [batch for seed in epochs for batch in batches_of_like_length(lengths, _BATCH, seed)]

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> tuple[dict[str, Any], Any]:
        batch = self._order[place]
        targets = keras.ops.convert_to_numpy([self._targets[at] for at in batch])
        return self.inputs([self._rows[at] for at in batch]), targets

    def inputs(self, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Rows of ids, padded."""
        padded = self._encode.batch(rows)
        return {"ids": padded["input_ids"].numpy(), "mask": padded["attention_mask"].numpy()}


class _Steps(keras.callbacks.Callback):  # type: ignore[misc]
    """Sets the learning rate of each step, and tells its loss."""

    def __init__(self, rate: float, steps: int, warmup: float, on_step: OnStep) -> None:
        super().__init__()
        self.losses: list[float] = []
        self._rate, self._steps, self._warmup, self._on_step = rate, steps, warmup, on_step

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """The rate of this step; the loss that is told will be of this batch alone."""
        self.model.reset_metrics()
        rate = learning_rate_at(len(self.losses) + 1, self._steps, self._rate, self._warmup)
        self.model.optimizer.learning_rate = rate

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """``UserError`` when the loss is no number."""
        loss = float(logs["loss"])
        self.losses.append(loss)
        if not math.isfinite(loss):
            raise UserError(
                f"training: the loss became {loss} at step {len(self.losses)} of {self._steps}; "
                f"lower learning_rate (now {self._rate:g})"
            )
        self._on_step(len(self.losses), self._steps, loss)


def _agree(model: Any, network: Any, inputs: dict[str, Any]) -> None:
    """``TreadleError`` unless both compute the same logits."""
    apart = difference(model, network, inputs)
    if not apart <= TOLERANCE:
        raise TreadleError(f"keras and transformers differ by {apart:.1e} in a logit; expected {TOLERANCE:g} at most")


def difference(model: Any, network: Any, inputs: dict[str, Any]) -> float:
    """The largest difference of two logits, without dropout."""
    import torch

    with torch.no_grad():
        ids, mask = torch.tensor(inputs["ids"]), torch.tensor(inputs["mask"])
        theirs = model(input_ids=ids, attention_mask=mask).logits.numpy()
        ours = keras.ops.convert_to_numpy(network(inputs, training=False))
    return float(abs(ours - theirs).max())
