"""Fine-tuning a causal language model on answers: one small loop, the same weights every time.

The number of optimizer steps is fixed beforehand from a token budget and never by a clock: with the same examples,
settings, seed, threads and library versions the weights come out byte for byte the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import torch_runtime
from treadle.lm.attention_mask import visible
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import Course, OnStep, Part
from treadle.lm.course import StepReport as StepReport
from treadle.lm.learner import AdamW, Learner, LoraLearner, all_of
from treadle.lm.packing import Packing, TokenizedExample, lay_out, pack
from treadle.lm.schedule import learning_rate_at
from treadle.lm.team import Team
from treadle.lm.torch_runtime import Precision

if TYPE_CHECKING:
    import torch

Method = Literal["full", "lora"]


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """One optimizer step sees ``rows`` x ``width`` tokens. ``threads`` ``None``: all cores this process may use.
    ``micro``: rows at a time, ``None`` for all.

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

    Goes on from the newest of ``checkpoints`` where there is one; in a ``team`` each process calls it alike.
    Raises ``UserError`` for settings that make no sense, examples that all drop out, and a loss that is no number.
    """
    try:
        return _fine_tune(base, out, examples, settings, on_step, checkpoints, team or Team())
    finally:
        torch_runtime.release_memory()


def _fine_tune(
    base: Path,
    out: Path,
    examples: Sequence[TokenizedExample],
    settings: TrainingSettings,
    on_step: OnStep | None,
    checkpoints: Checkpoints | None,
    team: Team,
) -> TrainingResult:
    try:
        torch_runtime.patient_threads()
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra="train") from None
    _check(settings)
    if settings.method == "lora" and not team.whole:
        raise UserError("develop.method: lora needs a strategy that keeps the model whole; take ddp in develop.on")
    packing = pack(examples, width=settings.width, seed=settings.seed)
    if not packing.rows:
        counts = ", ".join(f"{len(found)} {rule}" for rule, found in packing.dropped.items()) or "none given"
        raise UserError(f"training: no example is left ({counts}); raise max_length above {settings.width} or add data")
    started = time.monotonic()
    with torch_runtime.session(settings.threads, settings.seed) as threads:
        device = torch_runtime.device()
        precision = torch_runtime.precision(settings.precision, device)
        attention = torch_runtime.attention(device)

        def begun() -> Any:
            return torch_runtime.load(base, transformers.AutoModelForCausalLM, attn_implementation=attention)

        model = begun().to(device).train()
        optimizer = AdamW(settings.learning_rate, settings.clip, settings.weight_decay, getattr(torch, precision))
        lessons = _Lessons(examples, packing, settings)
        make = partial(_learner, settings=settings)
        learner = team.learner(model, optimizer, make, lambda part: lessons.loss(model, part))
        course = Course(lessons, learner, lessons.rate, micro=settings.micro, team=team, device=device)
        progress = course.run(checkpoints, on_step)
        model = learner.finished(model, begun)
        if team.leads:
            torch_runtime.save(model.to("cpu", getattr(torch, settings.save_dtype)), base, out)
    seen = lessons.seen(progress.done)
    return TrainingResult(
        steps=progress.done,
        tokens=progress.tokens,
        answer_tokens=sum(_learned_in(examples[i]) for i in seen),
        examples_seen=tuple(sorted(set(seen))),
        dropped=packing.dropped,
        first_loss=progress.losses[0],
        loss=progress.loss,
        seconds=time.monotonic() - started,
        trained_parameters=learner.size,
        micro=progress.micro,
        resumed=progress.resumed,
        spikes=tuple(progress.spikes),
        checkpoint_seconds=checkpoints.seconds if checkpoints is not None else 0.0,
        environment={
            "threads": threads,
            "device": device,
            "precision": precision,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "fill": round(packing.fill, 4),
        },
    )


def answer_loss(model: Any, examples: Sequence[TokenizedExample], rows: Sequence[Sequence[int]], width: int) -> Any:
    """Summed loss in nats over the answer tokens of ``rows``, as a scalar tensor with its gradient."""
    import torch

    batch = lay_out(examples, rows, width=width)
    targets = torch.tensor(batch.targets, device=model.device).flatten()
    wanted = (targets >= 0).nonzero().squeeze(1)
    logits = logits_at(model, batch, wanted)
    return torch.nn.functional.cross_entropy(logits.float(), targets[wanted], reduction="sum")


class _Lessons:
    """Packed rows of examples, for as long as the budget lasts."""

    name = "training"
    seed: int | None = None  # what is drawn goes on from step to step

    def __init__(self, examples: Sequence[TokenizedExample], packing: Packing, settings: TrainingSettings) -> None:
        self._examples, self._width, self._settings = examples, packing.width, settings
        self._stream, self._drawn = _endless_rows(examples, packing, settings), list[tuple[int, ...]]()
        self.steps = settings.steps
        self.remedy = f"lower learning_rate (now {settings.learning_rate:g}) or look for broken examples"

    def size(self, step: int) -> int:
        return self._settings.rows

    def part(self, step: int, first: int, last: int) -> Part:
        begin = (step - 1) * self._settings.rows
        rows = self._rows(begin + last)[begin + first : begin + last]
        members = [self._examples[i] for row in rows for i in row]
        return Part(sum(map(_learned_in, members)), sum(len(each.ids) for each in members), rows)

    def loss(self, model: Any, part: Part) -> Any:
        return answer_loss(model, self._examples, part.data, self._width)

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return learning_rate_at(step, self.steps, self._settings.learning_rate, self._settings.warmup)

    def seen(self, steps: int) -> list[int]:
        """The examples of the first steps, each as often as it came."""
        return [i for row in self._rows(steps * self._settings.rows)[: steps * self._settings.rows] for i in row]

    def _rows(self, count: int) -> list[tuple[int, ...]]:
        """The first rows, at least so many."""
        while len(self._drawn) < count:
            self._drawn.append(next(self._stream))
        return self._drawn


def _learned_in(example: TokenizedExample) -> int:
    return sum(map(bool, example.answer[1:]))


def _endless_rows(
    examples: Sequence[TokenizedExample], packing: Packing, settings: TrainingSettings
) -> Iterator[tuple[int, ...]]:
    """All rows, then all examples packed anew with the next seed, and so on."""
    epoch = 0
    while True:
        yield from packing.rows
        epoch += 1
        packing = pack(examples, width=settings.width, seed=settings.seed + epoch)


# Families whose logits are the output embedding times the hidden state, and nothing else (no scaling, no soft cap).
PLAIN_HEAD = frozenset({"llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "phi3", "smollm3", "olmo2"})


def logits_at(model: Any, batch: Any, wanted: torch.Tensor) -> torch.Tensor:
    """Logits at the wanted places of the flattened batch, the head applied there alone where the family allows it."""
    import torch

    inputs = {
        "input_ids": torch.tensor(batch.ids, device=model.device),
        "position_ids": torch.tensor(batch.positions, device=model.device),
        "attention_mask": visible(torch.tensor(batch.segments, device=model.device), model.dtype, causal=True),
        "use_cache": False,
    }
    if model.config.model_type in PLAIN_HEAD:
        hidden = model.base_model(**inputs).last_hidden_state
        logits: torch.Tensor = model.get_output_embeddings()(hidden.flatten(0, 1).index_select(0, wanted))
        return logits
    return model(**inputs).logits.flatten(0, 1).index_select(0, wanted)  # type: ignore[no-any-return]


def _learner(model: Any, optimizer: AdamW, settings: TrainingSettings) -> Learner:
    if settings.method == "lora":
        return LoraLearner(model, optimizer, rank=settings.lora_rank, alpha=settings.lora_alpha)
    return all_of(model, optimizer)


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
