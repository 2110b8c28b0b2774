"""A training under way: one optimizer step after the other, alone or in a team, and exactly on after a fall.

    Lessons   what is learned from, step by step: how many samples, a batch of some of them, their loss
    Learner   what is updated (``learner``)
    Team      the processes that share a step's samples (``team``)

What a step learns does not depend on how it is cut: its samples are divided among the processes, each takes as many
at a time as its memory holds, and the loss is the mean over all that is learned from in the step.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.learner import Learner
from treadle.lm.part import Part
from treadle.lm.team import Team

if TYPE_CHECKING:
    import torch

    from treadle.lm.held_out import Watch

_LATELY = 50  # steps whose losses say what is usual
_UNLEARNED = "nothing was learned by then, so the base's own weights are no numbers: take another copy of it"
_SPIKE = 6.0  # standard deviations above them that are noticed


class Lessons(Protocol):
    """What a training learns from. ``name`` and ``remedy`` are said when it cannot go on; ``seed`` makes what is drawn
    in a step depend on its number alone, None goes on with the random numbers of the step before."""

    steps: int
    name: str
    remedy: str
    seed: int | None

    def size(self, step: int) -> int:
        """How many samples a step has; steps count from 1."""
        ...

    def part(self, step: int, first: int, last: int) -> Part:
        """Its samples ``first`` ... ``last - 1``."""
        ...

    def loss(self, model: Any, part: Part) -> torch.Tensor:
        """Summed over what is learned, in nats, with its gradient."""
        ...


@dataclass(frozen=True, slots=True)
class StepReport:
    """One finished step; ``loss`` in nats per learned token, ``tokens`` so far without padding. ``figures``: beside
    the loss; those of a look at what is held out begin with ``held_out_``."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens: int
    tokens_per_second: float
    figures: dict[str, float] = field(default_factory=dict)


OnStep = Callable[[StepReport], None]


@dataclass(slots=True)
class Progress:
    """How far a training has come. ``resumed``: steps that came from a checkpoint. ``spikes``: steps whose loss stood
    out. ``micro``: samples at a time in the end. ``figures``: what was told of each step beside its loss. ``kept``: the
    step whose weights were kept, where the training was watched."""

    done: int = 0
    tokens: int = 0
    resumed: int = 0
    micro: int = 0
    losses: list[float] = field(default_factory=list)
    spikes: list[int] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)
    kept: int | None = None

    @property
    def loss(self) -> float:
        """Mean of the last tenth."""
        return lately(self.losses)


def lately(values: Sequence[float]) -> float:
    """Mean of the last tenth."""
    tail = values[-max(1, len(values) // 10) :]
    return sum(tail) / len(tail)


class Telling(Protocol):
    """Lessons that tell more of a step than its loss: the means of ``figures``."""

    figures: tuple[str, ...]

    def scores(self, said: Sequence[Any]) -> dict[str, float]:
        """Those, of what was said of samples."""
        ...


class Course:
    """All steps of one training. ``rate``: the learning rate of a step; ``micro``: samples at a time and process, None
    for all; ``watch``: judges it under way; ``told``: tells more of each step than its loss;
    ``begin`` sees a step's parts first."""

    def __init__(
        self,
        lessons: Lessons,
        learner: Learner,
        rate: Callable[[int], float],
        *,
        micro: int | None = None,
        team: Team | None = None,
        device: str = "cpu",
        watch: Watch | None = None,
        told: Telling | None = None,
        begin: Callable[[Sequence[Part]], None] | None = None,
    ) -> None:
        self._lessons, self._learner, self._rate = lessons, learner, rate
        self._team, self._device = team or Team(), device
        self._micro, self._watch, self._told, self._begin = micro, watch, told, begin
        self._lately: deque[float] = deque(maxlen=_LATELY)
        self.progress = Progress()

    def run(self, checkpoints: Checkpoints | None, on_step: OnStep | None) -> Progress:
        """From the newest checkpoint where there is one, to the end. ``UserError`` for a loss that is no number, and
        where not even one sample at a time fits into the memory."""
        self._go_on_from(checkpoints)
        now, steps, watch = self.progress, self._lessons.steps, self._watch
        began, before = time.monotonic(), now.tokens
        while now.done < steps and not (watch is not None and watch.over):
            step = now.done + 1
            rate = self._rate(step)
            loss, figures, due = self._step(step, rate, checkpoints)
            now.done = step
            self._note(step, loss, figures)
            if watch is not None and watch.due(step):
                figures = {**figures, f"held_out_{watch.metric}": watch.look(step, self._learner, self._team)}
            if due and checkpoints is not None and step < steps:
                self._save(checkpoints)
            if on_step is not None:
                speed = (now.tokens - before) / max(time.monotonic() - began, 1e-9)
                on_step(StepReport(step, steps, loss, rate, now.tokens, speed, figures))
        if watch is not None:
            watch.restore_best(now.done, self._learner)
            now.kept = watch.kept
        return now

    def _go_on_from(self, checkpoints: Checkpoints | None) -> None:
        found = self._team.agreed(checkpoints) if checkpoints is not None else None
        now = self.progress
        if found is None or found.step > self._lessons.steps:
            return
        self._learner.restore(found.tensors)
        torch_runtime.restore_random_state(found.tensors)
        now.done = now.resumed = found.step
        now.tokens, now.losses = int(found.notes["tokens"]), list(found.notes["losses"])
        now.spikes, now.figures = list(found.notes["spikes"]), found.notes.get("figures", {})
        if self._watch is not None:
            self._watch.restore(found.tensors, found.notes["looks"])
        self._lately.extend(now.losses[-_LATELY:])

    def _save(self, checkpoints: Checkpoints) -> None:
        now = self.progress
        notes = {"tokens": now.tokens, "losses": now.losses, "spikes": now.spikes, "figures": now.figures}
        tensors = self._learner.state()  # all processes have to ask for it
        if self._watch is not None:
            best, notes["looks"] = self._watch.state()
            tensors = tensors | best
        if self._team.leads:
            checkpoints.save(now.done, tensors | self._random(), notes)

    def _step(self, step: int, rate: float, checkpoints: Checkpoints | None) -> tuple[float, dict[str, float], bool]:
        """The step's loss and figures, and whether it is time for a checkpoint, which the first process says."""
        total, tokens, figures = self._gradients_that_fit(step)
        due = self._team.leads and checkpoints is not None and checkpoints.due()
        value, saves = self._team.total(total, float(due))
        if not math.isfinite(value):
            raise UserError(
                f"{self._lessons.name}: the loss became {value} at step {step} of {self._lessons.steps}; "
                f"{_UNLEARNED if step == 1 else self._lessons.remedy}"
            )
        norm = self._updated(rate)
        if not math.isfinite(norm):  # nothing of this step was saved
            raise UserError(
                f"{self._lessons.name}: the gradient became {norm} at step {step} of {self._lessons.steps}, though the "
                f"loss was {value:.4g}; {self._lessons.remedy}"
            )
        self.progress.tokens += tokens
        return value, figures, saves > 0

    def _updated(self, rate: float) -> float:
        """Update the weights; the norm of the gradient. The first time, the optimizer's moments are made."""
        try:
            return self._learner.step(rate)
        except Exception as error:
            if not torch_runtime.is_out_of_memory(error):
                raise
            raise UserError(
                f"{self._lessons.name}: the optimizer does not fit into the memory; make the model smaller, or, "
                "where all weights are fine-tuned, take method: lora"
            ) from None

    def _gradients_that_fit(self, step: int) -> tuple[float, int, dict[str, float]]:
        """As ``_gradients``, with fewer samples at a time where the memory is too small for more."""
        before = self._random()
        while True:
            self._draw(step, before)
            try:
                return self._gradients(step)
            except Exception as error:
                if not torch_runtime.is_out_of_memory(error):
                    raise
                most = min(self.progress.micro, -(-self._lessons.size(step) // self._team.size))
                # A team cannot try again by itself: the others wait inside of this step. Its launcher does.
                if self._team.size > 1 or most == 1:
                    raise self._too_large(most) from None
            self._learner.forget()
            torch_runtime.release_memory()
            self._micro = -(-most // 2)

    def _gradients(self, step: int) -> tuple[float, int, dict[str, float]]:
        """This process's part of the step's loss; the tokens and figures of the step in all processes."""
        size = self._lessons.size(step)
        cuts = list(self._cuts(size))
        parts = [self._lessons.part(step, first, last) for first, last, _ in cuts]
        counted = [part for part, (*_, counts) in zip(parts, cuts, strict=True) if counts]
        sums = self._team.total(float(sum(p.learned for p in counted)), float(sum(p.tokens for p in counted)))
        learned, tokens = int(sums[0]), int(sums[1])
        if self._begin is not None:
            self._begin(parts)
        total: Any = 0.0
        for number, (part, (*_, counts)) in enumerate(zip(parts, cuts, strict=True), 1):
            divisor = float(max(1, learned)) if counts else math.inf
            total = total + self._learner.learn(part, divisor, self._team.size, last=number == len(parts))
        return float(total), tokens, self._figures([each for part in counted for each in part.said or ()])

    def _figures(self, said: list[Any]) -> dict[str, float]:
        """What is told of the step: means over the samples of all processes."""
        if self._told is None:
            return {}
        scores = self._told.scores(said) if said else {}
        names = self._told.figures
        count, *sums = self._team.total(float(len(said)), *(scores.get(name, 0.0) * len(said) for name in names))
        return {name: value / max(1.0, count) for name, value in zip(names, sums, strict=True)}

    def _cuts(self, size: int) -> Iterator[tuple[int, int, bool]]:
        """From where to where this process takes its samples at a time, as often as every other process does: where
        there are not so many, it goes along with one that does not count."""
        share, most = self._team.share(size), -(-size // self._team.size)
        self.progress.micro = self._micro or max(self.progress.micro, most)
        times = 1 if self._micro is None else -(-most // self._micro)
        bounds = [share.start + len(share) * at // times for at in range(times + 1)]
        for first, last in pairwise(bounds):
            yield (first, last, True) if last > first else (0, 1, False)

    def _random(self) -> dict[str, torch.Tensor]:
        """The state of the random numbers, by name; nothing where each step begins with its own."""
        if self._lessons.seed is not None or self._team.size > 1:
            return {}
        return torch_runtime.random_state(self._device)

    def _draw(self, step: int, before: dict[str, torch.Tensor]) -> None:
        """What is dropped out in this step: the same whenever it is taken again."""
        import torch

        seed = self._lessons.seed
        if seed is None and self._team.size == 1:
            torch_runtime.restore_random_state(before)
            return
        mixed = ((seed or 0) << 32) + step + (self._team.rank << 56)
        torch.manual_seed(mixed & (2**63 - 1))

    def _note(self, step: int, loss: float, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.progress.figures.setdefault(name, []).append(value)
        if len(self._lately) == _LATELY:
            usual, spread = statistics.fmean(self._lately), statistics.pstdev(self._lately)
            if loss > usual + _SPIKE * max(spread, 0.01 * usual):
                self.progress.spikes.append(step)
        self._lately.append(loss)
        self.progress.losses.append(loss)

    def _too_large(self, micro: int) -> UserError:
        if micro > 1:
            return OutOfMemory(f"{self._lessons.name}: {micro} samples at a time do not fit into the memory", micro)
        return UserError(
            f"{self._lessons.name}: one sample does not fit into the memory; make the model smaller, or the tokens of "
            "a sample fewer"
        )


class OutOfMemory(UserError):
    """A process of a team had too little memory for ``micro`` samples at a time."""

    def __init__(self, message: str, micro: int) -> None:
        super().__init__(message)
        self.micro = micro
