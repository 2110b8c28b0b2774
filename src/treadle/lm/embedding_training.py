"""Fine-tuning an encoder so that texts that belong together lie close together.

Each pair of a batch is told from the other pairs' second texts, and from wrong ones that were given with it (multiple
negatives ranking: M. Henderson et al., arXiv:1705.00652, 4.4). As in ``training``, the number of steps is fixed
beforehand and the same input gives the same weights.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import torch_runtime
from treadle.lm.fitting import FitSettings, Fitted, OnStep
from treadle.lm.learner import AdamW, Learner
from treadle.lm.schedule import learning_rate_at
from treadle.lm.torch_embedding import mean_vectors, padding_tokenizer

if TYPE_CHECKING:
    import torch

_BATCH = 32  # pairs of a step: each has 31 others to be told from
_SCALE = 20.0  # cosines times this are the logits, as in sentence-transformers
_WARMUP, _CLIP, _WEIGHT_DECAY = 0.1, 1.0, 0.01
_POOLING = {
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that belong together, and texts that do not belong to the first though they may look like it."""

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()


def train_embedder(
    base: Path, out: Path, pairs: Sequence[Pair], settings: FitSettings, on_step: OnStep | None = None
) -> Fitted:
    """Train the encoder ``base``; write a model folder to ``out`` that sentence-transformers opens as well.

    ``on_step`` gets (step, steps, loss). ``UserError`` when there are fewer than two pairs or the loss is no number.
    """
    try:
        torch_runtime.patient_threads()
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="train") from None
    if len({pair.positive for pair in pairs}) < 2:
        raise UserError(f"training: {len(pairs)} pairs; expected two or more, of different second texts")
    batches = [batch for epoch in range(settings.epochs) for batch in _batches(len(pairs), settings.seed + epoch)]
    losses: list[float] = []
    with torch_runtime.session(None, settings.seed) as threads:
        device = torch_runtime.device()
        precision = torch_runtime.precision("auto", device)
        model = torch_runtime.load(base, transformers.AutoModel).to(device).train()
        encode = _Encoder(base, settings.max_length, model)
        learner = Learner(
            list(model.parameters()), AdamW(settings.learning_rate, _CLIP, _WEIGHT_DECAY, getattr(torch, precision))
        )
        for step, batch in enumerate(batches, 1):
            loss = _loss(encode, [pairs[place] for place in batch])
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise UserError(
                    f"training: the loss became {losses[-1]} at step {step} of {len(batches)}; "
                    f"lower learning_rate (now {settings.learning_rate:g})"
                )
            loss.backward()  # type: ignore[no-untyped-call]
            learner.step(learning_rate_at(step, len(batches), settings.learning_rate, _WARMUP))
            if on_step is not None:
                on_step(step, len(batches), losses[-1])
        learner.finish()
        torch_runtime.save(model.to("cpu"), base, out)
    _for_sentence_transformers(out, int(model.config.hidden_size), settings.max_length)
    tail = losses[-max(1, len(losses) // 10) :]
    environment = {"threads": threads, "device": device, "precision": precision, "torch": torch.__version__}
    return Fitted(sum(tail) / len(tail), len(losses), encode.truncated, environment)


def _batches(count: int, seed: int) -> list[list[int]]:
    """All pairs once, in random order; a last one alone joins those before it, for it has nothing to be told from."""
    order = list(range(count))
    random.Random(seed).shuffle(order)  # noqa: S311 - an order, not a secret
    batches = [order[start : start + _BATCH] for start in range(0, count, _BATCH)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2] += batches.pop()
    return batches


def _loss(encode: _Encoder, pairs: Sequence[Pair]) -> torch.Tensor:
    """Cross entropy of each first text choosing its own second text among all second texts of the batch."""
    import torch

    wrong = list(dict.fromkeys(text for pair in pairs for text in pair.negatives))
    choices = [pair.positive for pair in pairs] + wrong
    anchors, others = encode([pair.anchor for pair in pairs]), encode(choices)
    logits = anchors @ others.T * _SCALE
    true = [[pair.positive == text for text in choices] for pair in pairs]
    same = torch.tensor(true, device=logits.device)
    own = torch.arange(len(pairs), device=logits.device)
    same[own, own] = False
    # What another pair has as well is no wrong answer.
    return torch.nn.functional.cross_entropy(logits.masked_fill(same, -torch.inf), own)


class _Encoder:
    """Texts to vectors of length 1 with the model as it is trained."""

    def __init__(self, folder: Path, max_length: int, model: Any) -> None:
        self._tokenizer = padding_tokenizer(folder, max_length)
        self._model = model
        self.truncated = 0

    def __call__(self, texts: Sequence[str]) -> Any:
        encodings = self._tokenizer.encode_batch(list(texts))
        self.truncated += sum(bool(each.overflowing) for each in encodings)
        return mean_vectors(self._model, encodings)


def _for_sentence_transformers(folder: Path, width: int, max_length: int) -> None:
    """The files by which sentence-transformers knows how vectors come of hidden states."""
    kinds = (("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize"))
    modules = [
        {"idx": int(number), "name": number, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, path, kind in kinds
    ]
    for name in ("1_Pooling", "2_Normalize"):
        (folder / name).mkdir(exist_ok=True)
    written: dict[str, Any] = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": width, **_POOLING},
    }
    for name, content in written.items():
        (folder / name).write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")
