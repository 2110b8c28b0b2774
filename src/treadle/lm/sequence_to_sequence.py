"""Fine-tuning an encoder-decoder (T5, BART, Marian) to turn sources into targets: translations, summaries.

The decoder reads the target itself, one token behind (teacher forcing); the loss is the mean cross entropy over the
targets' tokens, without label smoothing. As in ``training``, the number of steps is fixed beforehand and the same input
gives the same weights.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import torch_runtime
from treadle.lm.fitting import OnStep
from treadle.lm.learner import AdamW, Learner
from treadle.lm.model_folder import read_config
from treadle.lm.packing import IGNORED
from treadle.lm.schedule import learning_rate_at
from treadle.lm.source_encoder import writes_targets
from treadle.lm.torch_runtime import Precision

if TYPE_CHECKING:
    from treadle.lm.tokenizer import ChatTokenizer

_SORTED_TOGETHER = 50  # batches; sorting all by length would feed short targets first
Ids = list[int]


@dataclass(frozen=True, slots=True)
class SequenceSettings:
    """``max_length`` in tokens, of a source and of a target: longer ones are cut there, and counted."""

    learning_rate: float = 1e-4
    epochs: int = 3
    batch_size: int = 16
    max_length: int = 256
    warmup: float = 0.06
    clip: float = 1.0
    weight_decay: float = 0.01
    seed: int = 0
    threads: int | None = None
    precision: Precision = "auto"


@dataclass(frozen=True, slots=True)
class SequenceResult:
    """``loss``: in nats a token of the targets, mean over the last tenth of the steps; ``cut_sources`` and
    ``cut_targets`` count what was longer than ``max_length``."""

    steps: int
    cut_sources: int
    cut_targets: int
    loss: float
    seconds: float
    environment: dict[str, Any] = field(default_factory=dict)


def train_sequences(
    base: Path,
    out: Path,
    sources: Sequence[str],
    targets: Sequence[str],
    settings: SequenceSettings,
    on_step: OnStep | None = None,
    *,
    prefix: str = "",
) -> SequenceResult:
    """Train the encoder-decoder in ``base`` on pairs of texts; write a model folder to ``out``.

    ``prefix`` goes before each source, and is remembered in ``config.json``, so that the model is asked as it was
    taught. ``on_step`` gets (step, steps, loss). ``UserError`` when the base is no encoder-decoder, its tokenizer does
    not fit it, there is nothing to learn from, or the loss is no number.
    """
    try:
        torch_runtime.patient_threads()
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="train") from None
    _check(base, sources, targets, settings)
    pairs, cut_sources, cut_targets = _encoded(base, [prefix + source for source in sources], targets, settings)
    started = time.monotonic()
    with torch_runtime.session(settings.threads, settings.seed) as threads:
        device = torch_runtime.device()
        precision = torch_runtime.precision(settings.precision, device)
        model = torch_runtime.load(base, transformers.AutoModelForSeq2SeqLM).to(device).train()
        _check_fits(base, model.config.vocab_size, pairs)
        dtype = getattr(torch, precision)
        fixed = {p: p.data for p in model.parameters() if not p.requires_grad}  # such as Marian's table of positions
        for parameter in fixed:
            parameter.data = parameter.data.to(dtype)
        optimizer = AdamW(settings.learning_rate, settings.clip, settings.weight_decay, dtype)
        learner = Learner([p for p in model.parameters() if p.requires_grad], optimizer)
        losses = _fit(model, learner, pairs, settings, on_step)
        learner.finish()
        for parameter, data in fixed.items():
            parameter.data = data
        model.config.prefix = prefix
        torch_runtime.save(model.to("cpu"), base, out)
    tail = losses[-max(1, len(losses) // 10) :]
    environment: dict[str, Any] = {"threads": threads, "device": device, "precision": precision}
    environment |= {"torch": torch.__version__, "transformers": transformers.__version__}
    seconds = time.monotonic() - started
    return SequenceResult(len(losses), cut_sources, cut_targets, sum(tail) / len(tail), seconds, environment)


def _fit(
    model: Any, learner: Learner, pairs: Sequence[tuple[Ids, Ids]], settings: SequenceSettings, on_step: OnStep | None
) -> list[float]:
    """All epochs; returns the loss of each step."""
    batches = [
        b for epoch in range(settings.epochs) for b in _batches(pairs, settings.batch_size, settings.seed + epoch)
    ]
    losses: list[float] = []
    for step, batch in enumerate(batches, 1):
        loss = _loss(model, [pairs[i] for i in batch])
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise UserError(
                f"training: the loss became {losses[-1]} at step {step} of {len(batches)}; "
                f"lower learning_rate (now {settings.learning_rate:g})"
            )
        loss.backward()
        learner.step(learning_rate_at(step, len(batches), settings.learning_rate, settings.warmup))
        if on_step is not None:
            on_step(step, len(batches), losses[-1])
    return losses


def _loss(model: Any, pairs: Sequence[tuple[Ids, Ids]]) -> Any:
    from torch.nn.functional import cross_entropy

    from treadle.lm.source_generation import padded

    ids, seen = padded([source for source, _ in pairs], 0, model.device)
    targets, real = padded([target for _, target in pairs], 0, model.device)
    labels = targets.masked_fill(real == 0, IGNORED)
    shown = model.prepare_decoder_input_ids_from_labels(labels)
    logits = model(input_ids=ids, attention_mask=seen, decoder_input_ids=shown, use_cache=False).logits
    return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def _encoded(
    base: Path, sources: Sequence[str], targets: Sequence[str], settings: SequenceSettings
) -> tuple[list[tuple[Ids, Ids]], int, int]:
    """Pairs of ids, and how many sources and targets were cut."""
    from treadle.lm.tokenizer import ChatTokenizer

    tokenizer: ChatTokenizer = ChatTokenizer.load(base)
    assert tokenizer.sources is not None
    length = min(settings.max_length, tokenizer.context_length)
    read, cut_sources = tokenizer.sources.encode(sources, length)
    written, cut_targets = tokenizer.sources.encode(targets, length)
    if any(not ids or ids[-1] not in tokenizer.eos_ids for ids in written):
        raise UserError(
            f"{base}: its tokenizer puts no token behind a text that ends it, so an answer would never end;"
            " take a model with its own tokenizer.json"
        )
    return list(zip(read, written, strict=True)), cut_sources, cut_targets


def _check(base: Path, sources: Sequence[str], targets: Sequence[str], settings: SequenceSettings) -> None:
    config = read_config(base)
    if not writes_targets(config):
        kinds = ", ".join(config.get("architectures") or ["no architecture"])
        raise UserError(f"{base}: {kinds} is no encoder-decoder; take T5, BART or Marian with the head that writes")
    if not sources or len(sources) != len(targets):
        raise UserError(f"training: {len(sources)} sources with {len(targets)} targets; expected at least one of each")
    for name in ("learning_rate", "epochs", "batch_size", "max_length"):
        value = getattr(settings, name)
        if not (0 < value < 1 if name == "learning_rate" else 1 <= value <= 1 << 20):
            raise UserError(f"develop.{name}: {value!r} is out of range")


def _check_fits(base: Path, vocabulary: int, pairs: Sequence[tuple[Ids, Ids]]) -> None:
    highest = max(max(ids, default=0) for pair in pairs for ids in pair)
    if highest >= vocabulary:
        raise UserError(
            f"{base}: the tokenizer gives id {highest}, and the model has {vocabulary}; they do not belong together"
        )


def _batches(pairs: Sequence[tuple[Ids, Ids]], size: int, seed: int) -> list[list[int]]:
    """All indices once, in random order but with pairs of like length together, so that little is padding."""
    draw = random.Random(seed)  # noqa: S311 - an order, not a secret
    order = list(range(len(pairs)))
    draw.shuffle(order)
    stretch = size * _SORTED_TOGETHER
    batches: list[list[int]] = []
    for start in range(0, len(order), stretch):
        near = sorted(order[start : start + stretch], key=lambda i: (len(pairs[i][1]), len(pairs[i][0])))
        batches += [near[at : at + size] for at in range(0, len(near), size)]
    draw.shuffle(batches)
    return batches
