"""A smaller generator that learns from a larger one with the same vocabulary: from the teacher's distribution over the
next token at every place of an answer, and from the answer itself.

Packed and fixed in its steps as ``training`` is: the same input gives the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.attention_mask import crosses_rows
from treadle.lm.block_attention import use_blocks
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import OnStep
from treadle.lm.distillation import DistillSettings, soft_loss, taught_by
from treadle.lm.epochs import Epochs, Outcome, Piece, fitted, in_batches
from treadle.lm.fewer_layers import kept_layers, with_layers
from treadle.lm.fitting import Fitted
from treadle.lm.model_folder import check_length
from treadle.lm.packing import TokenizedExample, lay_out, learned_in, pack
from treadle.lm.taught import teach
from treadle.lm.team import Team
from treadle.lm.training import logits_at

ROWS = 3  # of an optimizer step


def distill_generator(
    teacher: Path,
    out: Path,
    examples: Sequence[TokenizedExample],
    settings: DistillSettings,
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
    team: Team | None = None,
) -> Fitted:
    """Train a student of the generator in ``teacher``; write a model folder to ``out``, whole or not at all.

    Checkpoints and teams as in ``teach``; samples of ``looks`` are examples. ``truncated`` of what comes back counts
    the examples left out as too long. ``UserError`` when none is left, and when the loss is no number.
    """
    _, transformers = torch_runtime.libraries()
    settings.check()
    check_length(teacher, "develop.max_length", settings.max_length)
    laid: Any = {"width": settings.max_length, "alone": crosses_rows(teacher)}
    packed = [pack(examples, seed=settings.seed + at, **laid) for at in range(settings.epochs)]
    if not packed[0].rows:
        raise UserError(f"distillation: no example is left; raise develop.max_length above {settings.max_length}")
    every = [*examples, *(settings.looks.samples if settings.looks else ())]
    judged = pack(every[len(examples) :], seed=settings.seed, **laid).rows
    # Rows of all epochs, one after the other; those that are held out behind them.
    rows = [row for each in packed for row in each.rows]
    epochs, first = [], 0
    for each in packed:
        epochs.append(in_batches(first, first + len(each.rows), ROWS))
        first += len(each.rows)
    rows += [tuple(len(examples) + i for i in row) for row in judged]
    device = torch_runtime.device()
    attention = torch_runtime.attention(device, settings.max_length)
    large = torch_runtime.load(teacher, transformers.AutoModelForCausalLM, attn_implementation=attention)
    use_blocks(large, device)
    kept, how = kept_layers(large, settings.layers), settings.teaching(weight_decay=0.0)

    def outcome(small: Any, piece: Piece) -> Outcome:
        return Outcome(generator_loss(large, small, every, [rows[i] for i in piece.members], settings))

    lessons = Epochs(
        outcome,
        epochs,
        [sum(len(every[i].ids) for i in row) for row in rows],
        how,
        learned=[sum(learned_in(every[i]) for i in row) for row in rows],
        held_out=in_batches(first, len(rows), ROWS),
        name="distillation",
        setting="develop.distill.learning_rate",
    )

    def begun() -> Any:
        small = with_layers(large, kept)
        small.set_attn_implementation(attention)
        return use_blocks(small, device)

    def lessons_of(small: Any) -> Epochs:
        taught_by(large, small, how)
        return lessons

    carried: Any = {"on_step": on_step, "checkpoints": checkpoints, "team": team, "saved": "bfloat16"}
    highest = max(max(each.ids, default=0) for each in every)
    taught = teach(teacher, out, begun, lessons_of, how, highest=highest, looks=settings.looks, **carried)
    left_out = sum(len(example.ids) > settings.max_length for example in examples)
    return fitted(taught, left_out, layers=kept)


def generator_loss(
    large: Any,
    small: Any,
    examples: Sequence[TokenizedExample],
    rows: Sequence[Sequence[int]],
    settings: DistillSettings,
) -> Any:
    """Weighed mean of soft and hard loss, summed over the answer tokens of ``rows``, a scalar with its gradient."""
    import torch

    batch = lay_out(examples, rows, width=settings.max_length)
    targets = torch.tensor(batch.targets, device=small.device).flatten()
    wanted = (targets >= 0).nonzero().squeeze(1)
    with torch.no_grad():
        told = logits_at(large, batch, wanted)
    found = logits_at(small, batch, wanted)
    soft = soft_loss(found, told, settings.temperature).sum()
    hard = torch.nn.functional.cross_entropy(found.float(), targets[wanted], reduction="sum")
    return (settings.soft * soft + settings.hard * hard) / (settings.soft + settings.hard)
