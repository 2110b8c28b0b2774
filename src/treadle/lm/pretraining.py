"""Training on bare text: packed rows, one optimizer step after the other, and exactly on after a fall.

What a step learns depends on the settings and its number alone: which rows, what is hidden, and what is dropped out
are drawn from the seed and that number. So a training that was killed and goes on from its last checkpoint ends in the
same weights, byte for byte at equal threads on the same processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.lm import head_loss, torch_runtime
from treadle.lm.attention_mask import crosses_rows, masks
from treadle.lm.block_attention import use_blocks
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import OnStep
from treadle.lm.initial_model import model_class
from treadle.lm.model_folder import check_length
from treadle.lm.objective import Batch, Maker, Objective
from treadle.lm.packed_rows import PackedRows
from treadle.lm.packing import IGNORED, PADDING
from treadle.lm.part import Part
from treadle.lm.schedule import Schedule, learning_rate_at
from treadle.lm.taught import Teaching, teach
from treadle.lm.team import Team
from treadle.lm.torch_runtime import Precision

_NEARLY_ALL = 0.9  # share of places from which on all are computed: to pick some costs more, and in no fixed order
# Steps that are worth half a minute of compiling on a graphics card. On a processor it brings nothing: 3,013 tokens a
# second of a Llama of 10M parameters with it, 3,009 without.
_COMPILED_FROM = 1_000


@dataclass(frozen=True, slots=True)
class PretrainingSettings:
    """One optimizer step sees ``batch`` rows of ``width`` tokens; ``micro`` of them at a time, None for what fits."""

    tokens: int
    objective: Objective = "causal"
    batch: int = 32
    micro: int | None = None
    learning_rate: float = 1e-3
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    floor: float = 0.1
    clip: float = 1.0
    weight_decay: float = 0.1
    seed: int = 0
    threads: int | None = None
    precision: Precision = "auto"

    def steps(self, width: int) -> int:
        """Optimizer steps the tokens pay for, at least one."""
        return max(1, round(self.tokens / (self.batch * width)))


@dataclass(frozen=True, slots=True)
class PretrainingResult:
    """``loss``: mean of the last tenth, nats a learned token. ``spikes``: steps whose loss stood out. ``resumed``: how
    many steps came from a checkpoint. ``rows``: samples taken, in order, for the lineage."""

    steps: int
    tokens: int
    first_loss: float
    loss: float
    seconds: float
    trained_parameters: int
    micro: int
    resumed: int
    spikes: tuple[int, ...]
    checkpoint_seconds: float
    rows: tuple[int, ...]
    environment: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


def pretrain(
    base: Path,
    out: Path,
    rows: PackedRows,
    settings: PretrainingSettings,
    checkpoints: Checkpoints | None = None,
    on_step: OnStep | None = None,
    team: Team | None = None,
) -> PretrainingResult:
    """Train the model folder ``base`` further on packed rows and write it to ``out``, whole or not at all.

    Goes on from the newest of ``checkpoints`` where there is one; in a ``team`` each process calls it alike.
    Raises ``UserError`` for settings that make no sense, a base that cannot tell the texts of a row apart, and a loss
    that is no number; the checkpoints before that stay.
    """
    torch_runtime.libraries()
    check_length(base, "develop.pretrain.width", rows.width)
    if not len(rows):
        raise UserError("pretraining: there is no text to learn from")
    check_apart(base, settings.objective, rows)
    team, device = team or Team(), torch_runtime.device()
    kind = model_class({"masked": "bert", "spans": "t5"}.get(settings.objective, ""))
    attention = torch_runtime.attention(device, rows.width)

    def lessons_of(model: Any) -> _Lessons:
        lessons = _Lessons(Maker(settings.objective, rows, base, settings.seed), rows, settings, device)
        if device == "cuda" and team.size == 1 and lessons.steps >= _COMPILED_FROM:
            model.base_model.compile()
        return lessons

    how = Teaching(
        settings.learning_rate,
        clip=settings.clip,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        threads=settings.threads,
        micro=settings.micro,
        precision=settings.precision,
        betas=(0.9, 0.95),
        decays_vectors=False,
    )
    taught = teach(
        base,
        out,
        lambda: use_blocks(torch_runtime.load(base, kind, attn_implementation=attention), device),
        lessons_of,
        how,
        highest=rows.highest,
        on_step=on_step,
        checkpoints=checkpoints,
        team=team,
    )
    now = taught.progress
    return PretrainingResult(
        steps=now.done,
        tokens=now.tokens,
        first_loss=now.losses[0],
        loss=now.loss,
        seconds=taught.seconds,
        trained_parameters=taught.parameters,
        micro=now.micro,
        resumed=now.resumed,
        spikes=tuple(now.spikes),
        checkpoint_seconds=taught.checkpoint_seconds,
        rows=tuple(rows.order(0, min(len(rows), now.done * settings.batch), settings.seed)),
        environment=taught.environment,
        figures=taught.figures,
    )


def check_apart(base: Path, objective: Objective, *rows: PackedRows) -> None:
    """``UserError`` for a base that cannot tell the texts of a row apart, where rows hold several."""
    if objective == "causal" and any(each.shared for each in rows) and crosses_rows(base):
        raise UserError(
            "develop.pretrain: some layers of this base carry what they read into the next text of a row; take a base"
            " whose layers all attend, such as llama, qwen2 or gpt2"
        )


class _Lessons:
    """Packed rows, in the order that the seed gives them."""

    name = "pretraining"

    def __init__(self, maker: Maker, rows: PackedRows, settings: PretrainingSettings, device: str) -> None:
        self._maker, self._rows, self._settings, self._device = maker, rows, settings, device
        self.steps = settings.steps(rows.width)
        self.seed: int | None = settings.seed
        self.remedy = f"lower develop.pretrain.learning_rate (now {settings.learning_rate:g})"

    def size(self, step: int) -> int:
        return self._settings.batch

    def part(self, step: int, first: int, last: int) -> Part:
        begin = (step - 1) * self._settings.batch
        rows = self._rows.order(begin, self._settings.batch, self._settings.seed)
        made = self._maker.batch(begin + first, rows[first:last])
        return Part(made.learned, made.tokens, made)

    def loss(self, model: Any, part: Part) -> Any:
        return summed_loss(model, part.data, self._device)

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        asked = self._settings
        return learning_rate_at(step, self.steps, asked.learning_rate, asked.warmup, asked.schedule, asked.floor)


def summed_loss(model: Any, batch: Batch, device: str) -> Any:
    """Summed loss in nats over the places of a batch that are learned, as a scalar tensor with its gradient."""
    return head_loss.summed_loss(model, _inputs(batch, model, device), *_learned(batch, device))


def losses_by_place(model: Any, batch: Batch, device: str) -> Any:
    """Loss in nats of each place of a batch, of the shape of its targets; 0 where nothing is learned."""
    import torch

    found = torch.zeros(batch.targets.size, dtype=torch.float64)
    losses = head_loss.losses(model, _inputs(batch, model, device), *_learned(batch, device)).double().cpu()
    if len(losses) == len(found):
        return losses.reshape(batch.targets.shape)
    found[torch.from_numpy(batch.targets.ravel() != IGNORED)] = losses
    return found.reshape(batch.targets.shape)


def _learned(batch: Batch, device: str) -> tuple[Any, Any]:
    """Targets of the places that are learned, and where those are; of all places, and None, where most are."""
    import torch

    targets = torch.from_numpy(batch.targets.ravel())
    if batch.learned >= _NEARLY_ALL * len(targets):
        return targets.to(device), None
    places = (targets != IGNORED).nonzero().squeeze(1)
    return targets[places].to(device), places.to(device)


def _inputs(batch: Batch, model: Any, device: str) -> dict[str, Any]:
    import torch

    def there(array: Any) -> Any:
        return torch.from_numpy(array).to(device, non_blocking=True)

    if batch.decoder is not None:
        return {
            "input_ids": there(batch.ids),
            "attention_mask": there((batch.segments != PADDING).astype("int64")),
            "decoder_input_ids": there(batch.decoder),
            "use_cache": False,
        }
    inputs: dict[str, Any] = {"input_ids": there(batch.ids), "position_ids": there(batch.positions.copy())}
    if batch.causal:
        inputs["use_cache"] = False
    if not batch.causal or (batch.segments != 0).any():  # else each row is one text, as models take it for anyway
        inputs["attention_mask"] = masks(model, there(batch.segments), causal=batch.causal)
    return inputs


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Nats and learned tokens by example, of text that was not learned from."""

    nats: tuple[float, ...]
    learned: tuple[int, ...]


def held_out(folder: Path, rows: PackedRows, objective: Objective, *, batch: int = 8, seed: int = 0) -> HeldOut:
    """What a model makes of packed rows. Each example comes once; a causal model is not asked for its first token."""
    import numpy as np
    import torch

    device = torch_runtime.device()
    nats: list[float] = []
    learned: list[int] = []
    with torch_runtime.session(None, seed), torch.inference_mode():
        attention = torch_runtime.attention(device, rows.width)
        kind = model_class({"masked": "bert", "spans": "t5"}.get(objective, ""))
        model = use_blocks(torch_runtime.load(folder, kind, attn_implementation=attention), device).to(device).eval()
        maker = Maker(objective, rows, folder, seed)
        for first in range(0, len(rows), batch):
            members = list(range(first, min(first + batch, len(rows))))
            made = maker.batch(first, members)
            losses = losses_by_place(model, made, device).numpy()
            known = made.targets != IGNORED
            for segments, line, counted in _by_row(made, losses, known):
                for segment in range(int(segments.max()) + 1):
                    here = segments == segment
                    nats.append(float(np.sum(line[here])))
                    learned.append(int(np.sum(counted[here])))
    torch_runtime.release_memory()
    return HeldOut(tuple(nats), tuple(learned))


def _by_row(batch: Batch, losses: Any, known: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Segments, losses and what is learned, row by row; an encoder-decoder's rows are of one segment."""
    if batch.decoder is not None:
        for line, counted in zip(losses, known, strict=True):
            yield counted.astype("int64") - 1, line, counted
        return
    yield from zip(batch.segments, losses, known, strict=True)
