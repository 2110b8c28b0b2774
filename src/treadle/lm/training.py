"""Fine-tuning a causal language model on answers: one small loop, the same weights every time.

The number of optimizer steps is fixed beforehand from a token budget and never by a clock: with the same examples,
settings, seed, threads and library versions the weights come out byte for byte the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.attention_mask import crosses_rows, masks
from treadle.lm.block_attention import use_blocks
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import OnStep
from treadle.lm.course import StepReport as StepReport
from treadle.lm.head_loss import PLAIN_HEAD, summed_loss
from treadle.lm.held_out import Looks
from treadle.lm.learner import Method
from treadle.lm.model_folder import check_length
from treadle.lm.packing import Packing, TokenizedExample, lay_out, learned_in, pack
from treadle.lm.part import Part
from treadle.lm.taught import Teaching, teach
from treadle.lm.team import Team, maker_for
from treadle.lm.torch_runtime import Precision

if TYPE_CHECKING:
    import torch

_STEP = 32  # tokens


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """One optimizer step sees ``rows`` x ``width`` tokens. ``threads`` ``None``: all cores this process may use.
    ``micro``: rows at a time, ``None`` for all. ``adapter``: folder of one to the base, that ``lora`` goes on from.

    The defaults were measured on question and answer pairs with a 135M model: 1e-4 learned better than 3e-4.
    """

    method: Method = "full"
    learning_rate: float = 1e-4
    token_budget: int = 34_000
    rows: int = 3
    width: int = 256
    warmup: float = 0.06
    clip: float = 1.0
    weight_decay: float = 0.0
    seed: int = 0
    threads: int | None = None
    micro: int | None = None
    precision: Precision = "auto"
    save_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    lora_rank: int = 16
    lora_alpha: float = 32.0
    adapter: Path | None = None
    looks: Looks | None = None
    keeps_adapter: ClassVar[bool] = True

    @property
    def steps(self) -> int:
        """Optimizer steps the budget pays for, at least one."""
        return max(1, round(self.token_budget / (self.rows * self.width)))


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """``examples_seen``: sorted indices of the examples the weights depend on. ``loss``: mean of the last tenth.
    ``resumed``: steps that came from a checkpoint; ``spikes``: those whose loss stood out; ``micro``: rows at once."""

    steps: int
    tokens: int
    answer_tokens: int
    examples_seen: tuple[int, ...]
    dropped: dict[str, tuple[int, ...]]
    first_loss: float
    loss: float
    seconds: float
    trained_parameters: int
    micro: int = 0
    resumed: int = 0
    spikes: tuple[int, ...] = ()
    checkpoint_seconds: float = 0.0
    environment: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


def train(
    base: Path,
    out: Path,
    examples: Sequence[TokenizedExample],
    settings: TrainingSettings,
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
    team: Team | None = None,
) -> TrainingResult:
    """Fine-tune the model folder ``base`` and write the result to the folder ``out``, whole or not at all.

    Goes on from the newest of ``checkpoints`` where there is one; in a ``team`` each process calls it alike. Samples
    of ``looks`` are examples. Raises ``UserError`` for settings that make no sense, examples that all drop out, and a
    loss that is no number.
    """
    _, transformers = torch_runtime.libraries()
    _check(settings)
    team = team or Team()
    make = maker_for(settings, team)
    check_length(base, "develop.max_length", settings.width)
    packing = pack(examples, width=settings.width, seed=settings.seed, alone=crosses_rows(base))
    if not packing.rows:
        counts = ", ".join(f"{len(found)} {rule}" for rule, found in packing.dropped.items()) or "none given"
        raise UserError(f"training: no example is left ({counts}); raise max_length above {settings.width} or add data")
    device = torch_runtime.device()
    attention = torch_runtime.attention(device, settings.width)
    lessons = _Lessons(examples, packing, settings)
    taught = teach(
        base,
        out,
        lambda: use_blocks(
            torch_runtime.load(base, transformers.AutoModelForCausalLM, attn_implementation=attention), device
        ),
        lambda _model: lessons,
        lessons.how,
        make=make,
        highest=lessons.highest,
        looks=settings.looks,
        saved=settings.save_dtype,
        on_step=on_step,
        checkpoints=checkpoints,
        team=team,
    )
    now = taught.progress
    seen = lessons.seen(now.done)
    return TrainingResult(
        steps=now.done,
        tokens=now.tokens,
        answer_tokens=sum(learned_in(examples[i]) for i in seen),
        examples_seen=tuple(sorted(set(seen))),
        dropped=packing.dropped,
        first_loss=now.losses[0],
        loss=now.loss,
        seconds=taught.seconds,
        trained_parameters=taught.parameters,
        micro=now.micro,
        resumed=now.resumed,
        spikes=tuple(now.spikes),
        checkpoint_seconds=taught.checkpoint_seconds,
        environment=taught.environment | {"fill": round(packing.fill, 4)},
        figures=taught.figures,
    )


def answer_loss(model: Any, examples: Sequence[TokenizedExample], rows: Sequence[Sequence[int]], width: int) -> Any:
    """Summed loss in nats over the answer tokens of ``rows``, as a scalar tensor with its gradient."""
    import torch

    batch = lay_out(examples, rows, width=_needed(examples, rows, width))
    targets = torch.tensor(batch.targets, device=model.device).flatten()
    wanted = (targets >= 0).nonzero().squeeze(1)
    return summed_loss(model, _inputs(model, batch), targets[wanted], wanted)


def _needed(examples: Sequence[TokenizedExample], rows: Sequence[Sequence[int]], width: int) -> int:
    """As wide as the fullest row, in steps, so that shapes recur: rows are rarely full to the last token."""
    fullest = max(sum(len(examples[i].ids) for i in row) for row in rows)
    return min(width, -(-fullest // _STEP) * _STEP)


class _Lessons:
    """Packed rows of examples, for as long as the budget lasts; those that are held out are numbered behind them."""

    name = "training"
    seed: int | None = None  # what is drawn goes on from step to step
    metrics: tuple[str, ...] = ()

    def __init__(self, examples: Sequence[TokenizedExample], packing: Packing, settings: TrainingSettings) -> None:
        held_out = settings.looks.samples if settings.looks else ()
        self._examples, self._count = [*examples, *held_out], len(examples)
        self._width, self._alone, self._settings = packing.width, packing.alone, settings
        self._stream, self._drawn = _endless_rows(examples, packing, settings), list[tuple[int, ...]]()
        # A row of one example is mostly padding, which is no token of the budget.
        self.steps = max(1, round(settings.steps / packing.fill)) if packing.alone else settings.steps
        self.epoch = -(-len(packing.rows) // settings.rows)
        self.remedy = f"lower learning_rate (now {settings.learning_rate:g}) or look for broken examples"
        self.how = Teaching(
            settings.learning_rate,
            settings.warmup,
            settings.clip,
            settings.weight_decay,
            settings.seed,
            settings.threads,
            settings.micro,
            settings.precision,
        )

    @property
    def highest(self) -> int:
        """The largest id in them."""
        return max(max(each.ids, default=0) for each in self._examples)

    def size(self, step: int) -> int:
        return self._settings.rows

    def part(self, step: int, first: int, last: int) -> Part:
        begin = (step - 1) * self._settings.rows
        return self._part(self._rows(begin + last)[begin + first : begin + last])

    def held_out(self) -> list[Part]:
        judged, seed = self._examples[self._count :], self._settings.seed
        rows = pack(judged, width=self._width, seed=seed, alone=self._alone).rows
        moved = [tuple(self._count + i for i in row) for row in rows]
        size = self._settings.micro or self._settings.rows
        return [self._part(moved[at : at + size]) for at in range(0, len(moved), size)]

    def loss(self, model: Any, part: Part) -> Any:
        return answer_loss(model, self._examples, part.data, self._width)

    def scores(self, said: Sequence[Any]) -> dict[str, float]:
        """None beside the loss."""
        return {}

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.how.rate(step, self.steps)

    def seen(self, steps: int) -> list[int]:
        """The examples of the first steps, each as often as it came."""
        return [i for row in self._rows(steps * self._settings.rows)[: steps * self._settings.rows] for i in row]

    def _part(self, rows: list[tuple[int, ...]]) -> Part:
        members = [self._examples[i] for row in rows for i in row]
        return Part(sum(map(learned_in, members)), sum(len(each.ids) for each in members), rows)

    def _rows(self, count: int) -> list[tuple[int, ...]]:
        """The first rows, at least so many."""
        while len(self._drawn) < count:
            self._drawn.append(next(self._stream))
        return self._drawn


def _endless_rows(
    examples: Sequence[TokenizedExample], packing: Packing, settings: TrainingSettings
) -> Iterator[tuple[int, ...]]:
    """All rows, then all examples packed anew with the next seed, and so on."""
    epoch = 0
    while True:
        yield from packing.rows
        epoch += 1
        packing = pack(examples, width=settings.width, seed=settings.seed + epoch, alone=packing.alone)


def logits_at(model: Any, batch: Any, wanted: torch.Tensor) -> torch.Tensor:
    """Logits at the wanted places of the flattened batch, the head applied there alone where the family allows it."""
    inputs = _inputs(model, batch)
    if model.config.model_type in PLAIN_HEAD:
        hidden = model.base_model(**inputs).last_hidden_state
        logits: torch.Tensor = model.get_output_embeddings()(hidden.flatten(0, 1).index_select(0, wanted))
        return logits
    return model(**inputs).logits.flatten(0, 1).index_select(0, wanted)  # type: ignore[no-any-return]


def _inputs(model: Any, batch: Any) -> dict[str, Any]:
    import torch

    return {
        "input_ids": torch.tensor(batch.ids, device=model.device),
        "position_ids": torch.tensor(batch.positions, device=model.device),
        "attention_mask": masks(model, torch.tensor(batch.segments, device=model.device), causal=True),
        "use_cache": False,
    }


def _check(settings: TrainingSettings) -> None:
    limits = {
        "learning_rate": 0 < settings.learning_rate < 1,
        "token_budget": settings.token_budget > 0,
        "max_length": 2 <= settings.width <= 1 << 20,
        "rows": 1 <= settings.rows <= 4096,
        "warmup": 0 <= settings.warmup < 1,
        "threads": settings.threads is None or settings.threads > 0,
        "method": settings.method in ("full", "lora"),
        "lora_rank": settings.lora_rank > 0,
    }
    for name, fine in limits.items():
        if not fine:
            value = settings.width if name == "max_length" else getattr(settings, name)
            raise UserError(f"develop.{name}: {value!r} is out of range")
