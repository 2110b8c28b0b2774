"""Direct preference optimization (Rafailov et al., arXiv:2305.18290): of two answers to one question, the one that is
wanted becomes more probable than the other, measured from what the model thought of both before.

The loss of a pair is ``-log sigmoid(beta * ((c - c0) - (r - r0)))`` with the log-probabilities of the chosen and the
rejected answer, now and before. Those before are computed once, so no second model lies in memory. As in ``training``,
the number of steps is fixed beforehand and the same input gives the same weights.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.answer_pairs import Pair, log_ratio, preference_loss, usable_pairs
from treadle.lm.block_attention import use_blocks
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import OnStep, lately
from treadle.lm.epochs import in_batches
from treadle.lm.held_out import Looks
from treadle.lm.learner import Method
from treadle.lm.model_folder import check_length
from treadle.lm.part import Part
from treadle.lm.taught import Teaching, teach
from treadle.lm.team import Team, maker_for
from treadle.lm.torch_runtime import Precision


@dataclass(frozen=True, slots=True)
class PreferenceSettings:
    """One optimizer step sees ``batch`` pairs. ``tokens``, of both answers with their questions, goes before
    ``epochs``. ``adapter`` as in ``training.TrainingSettings``."""

    beta: float = 0.1
    method: Method = "full"
    learning_rate: float = 2e-5
    epochs: int = 1
    tokens: int | None = None
    batch: int = 8
    width: int = 256
    warmup: float = 0.1
    clip: float = 1.0
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


@dataclass(frozen=True, slots=True)
class PreferenceResult:
    """Means over the last tenth of the steps; ``held_out`` of pairs that were not learned from, where there are any.

    ``pairs_seen``: sorted indices of those the weights depend on; ``dropped`` those left out, by rule.
    """

    steps: int
    tokens: int
    pairs_seen: tuple[int, ...]
    dropped: dict[str, tuple[int, ...]]
    loss: float
    margin: float
    accuracy: float
    held_out: tuple[float, float] | None
    seconds: float
    environment: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


def train_on_preferences(
    base: Path,
    out: Path,
    pairs: Sequence[Pair],
    held_out: Sequence[Pair],
    settings: PreferenceSettings,
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
    team: Team | None = None,
) -> PreferenceResult:
    """Train the model folder ``base`` on the pairs and write the result to the folder ``out``, whole or not at all.

    ``held_out`` are judged in the end, and under way where there are ``looks``. Checkpoints and teams as in ``teach``.
    Steps tell ``margin``, the mean of ``beta * ((c - c0) - (r - r0))``, and ``accuracy``, the share above 0. Raises
    ``UserError`` for settings out of range, pairs that all drop out, and a loss that is no number.
    """
    _, transformers = torch_runtime.libraries()
    _check(settings)
    team = team or Team()
    if not team.whole:
        raise UserError("develop.on: prefer needs a strategy that keeps the model whole; take ddp")
    usable, dropped = usable_pairs(pairs, settings.width)
    if not usable:
        counts = ", ".join(f"{len(found)} {rule}" for rule, found in dropped.items()) or "none given"
        raise UserError(
            f"preferences: no pair is left ({counts}); raise develop.max_length above {settings.width} or add data"
        )
    judged = [held_out[place] for place in usable_pairs(held_out, settings.width)[0]]
    lessons = _Lessons(pairs, usable, judged, settings)
    check_length(base, "develop.max_length", settings.width)
    device = torch_runtime.device()
    attention = torch_runtime.attention(device, settings.width)
    found: list[float] = []
    taught = teach(
        base,
        out,
        lambda: use_blocks(
            torch_runtime.load(base, transformers.AutoModelForCausalLM, attn_implementation=attention), device
        ),
        lessons.of,
        lessons.how,
        make=maker_for(settings, team),
        highest=lessons.highest,
        looks=settings.looks,
        ready=lessons.remember,
        done=lambda model: found.extend(lessons.margins(model)),
        saved=settings.save_dtype,
        on_step=on_step,
        checkpoints=checkpoints,
        team=team,
    )
    now = taught.progress
    return PreferenceResult(
        steps=now.done,
        tokens=now.tokens,
        pairs_seen=lessons.seen(now.done),
        dropped=dropped,
        loss=now.loss,
        margin=lately(now.figures["margin"]),
        accuracy=lately(now.figures["accuracy"]),
        held_out=(_mean(found), _accuracy(found)) if found else None,
        seconds=taught.seconds,
        environment=taught.environment,
        figures=taught.figures,
    )


class _Lessons:
    """Pairs in the order that the seed gives them; those that are held out are numbered behind them."""

    name = "preferences"
    seed: int | None = None  # nothing is drawn
    metrics: tuple[str, ...] = ("accuracy", "margin")
    figures = metrics

    def __init__(
        self, pairs: Sequence[Pair], usable: Sequence[int], judged: Sequence[Pair], settings: PreferenceSettings
    ) -> None:
        self._pairs, self._settings = [*pairs, *judged], settings
        self._judged = range(len(pairs), len(self._pairs))
        self._batches = list(_batches(pairs, usable, settings))
        self._before: dict[int, float] = {}
        self.steps, self.epoch = len(self._batches), -(-len(usable) // settings.batch)
        self.remedy = f"lower develop.prefer.learning_rate (now {settings.learning_rate:g}) or beta"
        names = ("learning_rate", "warmup", "clip", "seed", "threads", "micro", "precision")
        self.how = Teaching(**{name: getattr(settings, name) for name in names}, weight_decay=0.0)

    def of(self, model: Any) -> _Lessons:
        """These, for a model in which nothing is dropped out: it would differ from itself."""
        model.eval()
        return self

    def remember(self, model: Any) -> None:
        """What the model thinks of all pairs before it learns."""
        seen = [*self.seen(self.steps), *self._judged]
        self._before = dict(zip(seen, self._log_ratios(model, seen), strict=True))

    def margins(self, model: Any) -> list[float]:
        """Of the pairs that are held out, now."""
        found = zip(self._judged, self._log_ratios(model, self._judged), strict=True)
        return [self._settings.beta * (now - self._before[place]) for place, now in found]

    @property
    def highest(self) -> int:
        """The largest id in them."""
        return max(max(said.ids, default=0) for pair in self._pairs for said in (pair.chosen, pair.rejected))

    def size(self, step: int) -> int:
        return len(self._batches[step - 1])

    def part(self, step: int, first: int, last: int) -> Part:
        return self._part(self._batches[step - 1][first:last])

    def held_out(self) -> list[Part]:
        return [self._part(each) for each in in_batches(self._judged.start, self._judged.stop, self._settings.batch)]

    def loss(self, model: Any, part: Part) -> Any:
        pairs, before = [self._pairs[i] for i in part.data], [self._before[i] for i in part.data]
        losses, margins = preference_loss(model, pairs, before, self._settings.beta, self._settings.width)
        if part.said is not None:
            part.said.extend(margins.tolist())
        return losses.sum()

    def scores(self, said: Sequence[float]) -> dict[str, float]:
        """Of the margins of pairs."""
        return {"margin": _mean(said), "accuracy": _accuracy(said)}

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.how.rate(step, self.steps)

    def seen(self, steps: int) -> tuple[int, ...]:
        """The pairs of the first steps."""
        return tuple(sorted({place for batch in self._batches[:steps] for place in batch}))

    def _part(self, members: Sequence[int]) -> Part:
        return Part(len(members), sum(self._pairs[i].tokens for i in members), members, [])

    def _log_ratios(self, model: Any, members: Sequence[int]) -> list[float]:
        """Without a gradient, for as many pairs as one likes."""
        import torch

        found: list[float] = []
        with torch.inference_mode():
            for start in range(0, len(members), self._settings.batch):
                pairs = [self._pairs[i] for i in members[start : start + self._settings.batch]]
                found += log_ratio(model, pairs, self._settings.width).tolist()
        return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _accuracy(margins: Sequence[float]) -> float:
    """Share of pairs in which the wanted answer became the more probable one."""
    return _mean([margin > 0 for margin in margins])


def _batches(pairs: Sequence[Pair], usable: Sequence[int], settings: PreferenceSettings) -> Iterator[list[int]]:
    """Every pair once an epoch, in an order drawn anew each; as many epochs as there shall be, or tokens last."""
    tokens, epoch = 0, 0
    while settings.tokens is not None or epoch < settings.epochs:
        order = list(usable)
        random.Random(f"{settings.seed} {epoch}").shuffle(order)  # noqa: S311 - an order, not a secret
        for start in range(0, len(order), settings.batch):
            batch = order[start : start + settings.batch]
            yield batch
            tokens += sum(pairs[place].tokens for place in batch)
            if settings.tokens is not None and tokens >= settings.tokens:
                return
        epoch += 1


def _check(settings: PreferenceSettings) -> None:
    limits = {
        "beta": 0 < settings.beta <= 100,
        "learning_rate": 0 < settings.learning_rate < 1,
        "epochs": 1 <= settings.epochs <= 1 << 20,
        "batch": 1 <= settings.batch <= 4096,
    }
    for name, fine in limits.items():
        if not fine:
            raise UserError(f"develop.prefer.{name}: {getattr(settings, name)!r} is out of range")
