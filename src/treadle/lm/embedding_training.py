"""Fine-tuning an encoder so that texts that belong together lie close together.

Each pair of a batch is told from the other pairs' second texts, and from wrong ones that were given with it (multiple
negatives ranking: M. Henderson et al., arXiv:1705.00652, 4.4). As in ``training``, the number of steps is fixed
beforehand and the same input gives the same weights.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import OnStep
from treadle.lm.epochs import Epochs, Outcome, Piece, fitted, in_batches, teaching
from treadle.lm.fitting import FitSettings, Fitted
from treadle.lm.model_folder import check_length
from treadle.lm.part import Part
from treadle.lm.taught import teach
from treadle.lm.team import Team, maker_for
from treadle.lm.torch_embedding import mean_vectors, padding_tokenizer

if TYPE_CHECKING:
    import torch

BATCH = 32  # pairs of a step: each has 31 others to be told from
_SCALE = 20.0  # cosines times this are the logits, as in sentence-transformers
_WARMUP = 0.1
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
    base: Path,
    out: Path,
    pairs: Sequence[Pair],
    settings: FitSettings,
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
    team: Team | None = None,
) -> Fitted:
    """Train the encoder ``base``; write a model folder to ``out`` that sentence-transformers opens as well.

    Checkpoints and teams as in ``teach``; samples of ``looks`` are pairs. ``UserError`` when there are fewer than two
    pairs or the loss is no number.
    """
    _, transformers = torch_runtime.libraries()
    if len({pair.positive for pair in pairs}) < 2:
        raise UserError(f"training: {len(pairs)} pairs; expected two or more, of different second texts")
    team = team or Team()
    if not team.whole:
        raise UserError("develop.on: task embed needs a strategy that keeps the model whole; take ddp")
    check_length(base, "develop.max_length", settings.max_length)
    every = [*pairs, *(settings.looks.samples if settings.looks else ())]
    how = teaching(settings, warmup=_WARMUP)
    tokenizer = padding_tokenizer(base, settings.max_length)

    def begun() -> Any:
        model = torch_runtime.load(base, transformers.AutoModel)
        if getattr(model, "pooler", None) is not None:
            model.pooler.requires_grad_(False)  # no vector comes from it, and processes wait for every gradient
        return model

    epochs = [_batches(len(pairs), settings.seed + epoch) for epoch in range(settings.epochs)]
    held_out = in_batches(len(pairs), len(every), BATCH)
    seen: set[int] = set()

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer.encode(text).ids
        seen.update(found)
        return found

    tokens = [sum(len(ids(text)) for text in (each.anchor, each.positive)) for each in every]
    for text in (text for each in every for text in each.negatives):
        ids(text)

    def lessons_of(model: Any) -> Epochs:
        vectors = _Vectors(tokenizer, every, team, model)
        metrics = ("accuracy",)
        return Epochs(vectors.outcome, epochs, tokens, how, held_out=held_out, metrics=metrics, begin=vectors.begin)

    make = maker_for(settings, team)
    carried: Any = {"make": make, "on_step": on_step, "checkpoints": checkpoints, "team": team}
    taught = teach(base, out, begun, lessons_of, how, texts=[list(seen)], looks=settings.looks, **carried)
    if team.leads:
        width = int(transformers.AutoConfig.from_pretrained(out, local_files_only=True).hidden_size)
        _for_sentence_transformers(out, width, settings.max_length)
    longer = (tokenizer.encode(text).overflowing for pair in pairs for text in (pair.anchor, pair.positive))
    return fitted(taught, sum(map(bool, longer)))


def _batches(count: int, seed: int) -> list[list[int]]:
    """All pairs once, in random order; a last one alone joins those before it, for it has nothing to be told from."""
    order = list(range(count))
    random.Random(seed).shuffle(order)  # noqa: S311 - an order, not a secret
    batches = [order[start : start + BATCH] for start in range(0, count, BATCH)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2] += batches.pop()
    return batches


class _Vectors:
    """Pairs as vectors of length 1, and the loss of a batch of them.

    A pair is told from all others of its batch, so some of them alone have no loss. Where a batch does not fit into the
    memory, or is divided among processes, all its vectors are computed first without a gradient, and what the loss asks
    of each is then asked of the texts of one piece after the other (L. Gao et al., arXiv:2101.06983). What is dropped
    out is the same both times.
    """

    def __init__(self, tokenizer: Any, pairs: Sequence[Pair], team: Team, model: Any) -> None:
        self._tokenizer, self._pairs, self._team, self._model = tokenizer, pairs, team, model
        self._drawn: dict[tuple[int, int], dict[str, torch.Tensor]] = {}
        self._losses: list[float] = []
        self._asked: list[torch.Tensor] = []  # of each pair: what its vectors shall change by

    def begin(self, parts: Sequence[Part]) -> None:
        """See all of a batch, where this process has it in pieces."""
        import torch

        pieces: list[Piece] = [part.data for part in parts]
        if _is_whole(pieces[0]):
            return
        batch, device = pieces[0].batch, str(self._model.device.type)
        own, found = self._team.share(len(batch)), dict[int, Any]()
        for piece in pieces:
            self._drawn[piece.first, piece.last] = torch_runtime.random_state(device)
            with torch.no_grad():
                vectors = self._encode(piece.members)
            found |= {at: each for at, each in enumerate(vectors, piece.first) if at in own}
        width = int(self._model.config.hidden_size)
        empty = [torch.zeros(2 + len(self._pairs[i].negatives), width) for i in batch]
        flat = torch.cat([found[at].cpu() if at in found else none for at, none in enumerate(empty)]).flatten()
        whole = torch.tensor(self._team.total(*flat.tolist()), dtype=torch.float32).view(-1, width)
        held = [each.requires_grad_() for each in torch.split(whole, [len(each) for each in empty])]
        losses, _ = self._told_apart(held, batch)
        self._asked = list(torch.autograd.grad(losses.sum(), held))
        self._losses = losses.tolist()

    def outcome(self, _model: Any, piece: Piece) -> Outcome:
        """Each pair of the piece choosing its own second text among all of the batch."""
        import torch

        if _is_whole(piece):
            losses, said = self._told_apart(self._encode(piece.members), piece.batch)
            return Outcome(losses.sum(), said)
        device = str(self._model.device.type)
        after = torch_runtime.random_state(device)
        torch_runtime.restore_random_state(self._drawn[piece.first, piece.last])
        vectors = torch.cat(self._encode(piece.members))
        torch_runtime.restore_random_state(after)
        asked = torch.cat(self._asked[piece.first : piece.last]).to(vectors.device)
        gradient = (vectors * asked).sum()
        return Outcome(gradient - gradient.detach() + sum(self._losses[piece.first : piece.last]))

    def _encode(self, members: Sequence[int]) -> list[Any]:
        """Of each pair a tensor (texts, width): its first text, its second, and those that were given as wrong."""
        import torch

        pairs = [self._pairs[i] for i in members]
        firsts = self._vectors([pair.anchor for pair in pairs])
        others = self._vectors([text for pair in pairs for text in (pair.positive, *pair.negatives)])
        sizes = [1 + len(pair.negatives) for pair in pairs]
        return [torch.cat((one[None], rest)) for one, rest in zip(firsts, others.split(sizes), strict=True)]

    def _vectors(self, texts: Sequence[str]) -> Any:
        return mean_vectors(self._model, self._tokenizer.encode_batch(list(texts)))

    def _told_apart(self, vectors: Sequence[Any], batch: Sequence[int]) -> tuple[Any, Callable[[], Iterable[Any]]]:
        """Cross entropy of each first text choosing its own second text, and whether it would."""
        import torch

        pairs = [self._pairs[i] for i in batch]
        wrong: dict[str, Any] = {}
        for pair, each in zip(pairs, vectors, strict=True):
            wrong |= zip(pair.negatives, each[2:], strict=True)
        choices = [pair.positive for pair in pairs] + list(wrong)
        firsts = torch.stack([each[0] for each in vectors])
        others = torch.stack([each[1] for each in vectors] + list(wrong.values()))
        logits = firsts @ others.T * _SCALE
        same = torch.tensor([[pair.positive == text for text in choices] for pair in pairs], device=logits.device)
        own = torch.arange(len(pairs), device=logits.device)
        same[own, own] = False
        # What another pair has as well is no wrong answer.
        told = logits.masked_fill(same, -torch.inf)
        losses = torch.nn.functional.cross_entropy(told, own, reduction="none")
        return losses, lambda: zip(told.argmax(-1).tolist(), own.tolist(), strict=True)


def _is_whole(piece: Piece) -> bool:
    return len(piece.members) == len(piece.batch)


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
