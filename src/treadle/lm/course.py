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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.learner import Learner
from treadle.lm.team import Team

if TYPE_CHECKING:
    import torch

_LATELY = 50  # steps whose losses say what is usual
_SPIKE = 6.0  # standard deviations above them that are noticed


@dataclass(frozen=True, slots=True)
class Part:
    """Some samples of a step: how much in them is learned, tokens without padding, and what the loss is made of."""

    learned: int
    tokens: int
    data: Any


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
    """One finished step; ``loss`` in nats per learned token, ``tokens`` so far without padding."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens: int
    tokens_per_second: float


OnStep = Callable[[StepReport], None]


@dataclass(slots=True)
class Progress:
    """How far a training has come. ``resumed``: steps that came from a checkpoint. ``spikes``: steps whose loss stood
    out. ``micro``: samples at a time in the end."""

    done: int = 0
    tokens: int = 0
    resumed: int = 0
    micro: int = 0
    losses: list[float] = field(default_factory=list)
    spikes: list[int] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Mean of the last tenth."""
        tail = self.losses[-max(1, len(self.losses) // 10) :]
        return sum(tail) / len(tail)


class Course:
    """All steps of one training. ``rate``: the learning rate of a step; ``micro``: samples at a time and process, None
    for all."""

    def __init__(
        self,
        lessons: Lessons,
        learner: Learner,
        rate: Callable[[int], float],
        *,
        micro: int | None = None,
        team: Team | None = None,
        device: str = "cpu",
    ) -> None:
        self._lessons, self._learner, self._rate = lessons, learner, rate
        self._team, self._device = team or Team(), device
        self._micro = micro
        self._lately: deque[float] = deque(maxlen=_LATELY)
        self.progress = Progress()

    def run(self, checkpoints: Checkpoints | None, on_step: OnStep | None) -> Progress:
        """From the newest checkpoint where there is one, to the end. ``UserError`` for a loss that is no number, and
        where not even one sample at a time fits into the memory."""
        self._go_on_from(checkpoints)
        now, steps = self.progress, self._lessons.steps
        began, before = time.monotonic(), now.tokens
        while now.done < steps:
            step = now.done + 1
            rate = self._rate(step)
            loss, due = self._step(step, rate, checkpoints)
            now.done = step
            self._note(step, loss)
            if due and checkpoints is not None and step < steps:
                self._save(checkpoints)
            if on_step is not None:
                speed = (now.tokens - before) / max(time.monotonic() - began, 1e-9)
                on_step(StepReport(step, steps, loss, rate, now.tokens, speed))
        return now

    def _go_on_from(self, checkpoints: Checkpoints | None) -> None:
        found = self._team.agreed(checkpoints) if checkpoints is not None else None
        now = self.progress
        if found is None or found.step > self._lessons.steps:
            return
        self._learner.restore(found.tensors)
        _restore_random(found.tensors)
        now.done = now.resumed = found.step
        now.tokens, now.losses = int(found.notes["tokens"]), list(found.notes["losses"])
        now.spikes = list(found.notes["spikes"])
        self._lately.extend(now.losses[-_LATELY:])

    def _save(self, checkpoints: Checkpoints) -> None:
        now = self.progress
        notes = {"tokens": now.tokens, "losses": now.losses, "spikes": now.spikes}
        tensors = self._learner.state()  # all processes have to ask for it
        if self._team.leads:
            checkpoints.save(now.done, tensors | self._random(), notes)

    def _step(self, step: int, rate: float, checkpoints: Checkpoints | None) -> tuple[float, bool]:
        """The step's loss, and whether it is time for a checkpoint, which the first process says."""
        total, tokens = self._gradients_that_fit(step)
        due = self._team.leads and checkpoints is not None and checkpoints.due()
        value, saves = self._team.total(total, float(due))
        if not math.isfinite(value):
            raise UserError(
                f"{self._lessons.name}: the loss became {value} at step {step} of {self._lessons.steps}; "
                f"{self._lessons.remedy}"
            )
        self._learner.step(rate)
        self.progress.tokens += tokens
        return value, saves > 0

    def _gradients_that_fit(self, step: int) -> tuple[float, int]:
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

    def _gradients(self, step: int) -> tuple[float, int]:
        """This process's part of the step's loss, and the tokens of the step in all processes."""
        size = self._lessons.size(step)
        cuts = list(self._cuts(size))
        parts = [self._lessons.part(step, first, last) for first, last, _ in cuts]
        counted = [part for part, (*_, counts) in zip(parts, cuts, strict=True) if counts]
        sums = self._team.total(float(sum(p.learned for p in counted)), float(sum(p.tokens for p in counted)))
        learned, tokens = int(sums[0]), int(sums[1])
        total: Any = 0.0
        for number, (part, (*_, counts)) in enumerate(zip(parts, cuts, strict=True), 1):
            divisor = float(max(1, learned)) if counts else math.inf
            total = total + self._learner.learn(part, divisor, self._team.size, last=number == len(parts))
        return float(total), tokens

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
        import torch

        if self._lessons.seed is not None or self._team.size > 1:
            return {}
        found = {"random": torch.get_rng_state()}
        if self._device == "cuda":
            found["random.cuda"] = torch.cuda.get_rng_state()
        return found

    def _draw(self, step: int, before: dict[str, torch.Tensor]) -> None:
        """What is dropped out in this step: the same whenever it is taken again."""
        import torch

        seed = self._lessons.seed
        if seed is None and self._team.size == 1:
            _restore_random(before)
            return
        mixed = ((seed or 0) << 32) + step + (self._team.rank << 56)
        torch.manual_seed(mixed & (2**63 - 1))

    def _note(self, step: int, loss: float) -> None:
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


def _restore_random(found: dict[str, torch.Tensor]) -> None:
    import torch

    with suppress(KeyError):  # a checkpoint that has none, or one from another device
        torch.set_rng_state(found["random"])
        torch.cuda.set_rng_state(found["random.cuda"])
