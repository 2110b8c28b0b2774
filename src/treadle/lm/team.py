"""The processes that train one model together; by default it is one, alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from treadle.core.errors import UserError
from treadle.lm.checkpoint import Checkpoint, Checkpoints
from treadle.lm.learner import AdamW, Adapting, Learner, learner_by

if TYPE_CHECKING:
    import torch

Loss = Callable[[Any], "torch.Tensor"]  # of some samples
MakeLearner = Callable[[Any, AdamW], Learner]


class Team:
    """One process by itself. ``rank`` counts from 0, and who has it writes what is written."""

    rank = 0
    size = 1
    whole = True  # whether each process holds the whole model

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of ``count`` samples are this process's; as many for each as can be."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def total(self, *values: float) -> list[float]:
        """Each of the values, summed over all processes."""
        return list(values)

    def agreed(self, checkpoints: Checkpoints) -> Checkpoint | None:
        """The newest checkpoint, the same for all."""
        return checkpoints.latest()

    def learner(self, model: Any, optimizer: AdamW, make: MakeLearner, loss: Loss) -> Learner:
        """Who updates the model: what ``make`` gives, or something that shares the work with the others."""
        learner = make(model, optimizer)
        learner.attend(loss)
        return learner


def maker_for(settings: Adapting, team: Team) -> MakeLearner:
    """What makes a learner by the settings; ``UserError`` where the team cannot share what they ask for."""
    if settings.method == "lora" and not team.whole:
        raise UserError("develop.method: lora needs a strategy that keeps the model whole; take ddp in develop.on")
    return partial(learner_by, settings=settings)
