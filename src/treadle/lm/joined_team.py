"""A process that is one of several: they exchange sums and gradients through torch.distributed.

A strategy says how they share the model:

    ddp      each holds all of it; gradients are averaged while they are computed
    fsdp2    weights, gradients and moments are cut among them (``sharded``)
    zero2    gradients and moments are, by DeepSpeed; zero3 the weights as well

Which one it is does not change what is learned, but for rounding: the samples of a step are divided among them.
"""

from __future__ import annotations

from typing import Any, Protocol

from treadle.lm.checkpoint import Checkpoint, Checkpoints
from treadle.lm.learner import AdamW, Learner
from treadle.lm.team import Loss, MakeLearner, Team


class Strategy(Protocol):
    """How processes share a model. ``whole``: whether each holds all of it, as adapters need."""

    whole: bool

    def learner(self, model: Any, optimizer: AdamW, make: MakeLearner, loss: Loss) -> Learner:
        """Who updates this process's part of the model."""
        ...


class JoinedTeam(Team):
    """One of ``size`` processes whose process group is there already."""

    def __init__(self, rank: int, size: int, strategy: Strategy, device: str) -> None:
        self.rank, self.size = rank, size
        self.whole = strategy.whole
        self._strategy, self._device = strategy, device

    def total(self, *values: float) -> list[float]:
        """Each of the values, summed over all processes."""
        import torch
        import torch.distributed

        held = torch.tensor(values, dtype=torch.float64, device=self._device)
        torch.distributed.all_reduce(held)
        found: list[float] = held.tolist()
        return found

    def agreed(self, checkpoints: Checkpoints) -> Checkpoint | None:
        """The newest that is whole for the first process."""
        found = checkpoints.latest() if self.leads else None
        (step,) = self.total(float(found.step if found else -1) if self.leads else 0.0)
        if step < 0:
            return None
        return found or checkpoints.at(int(step))

    def learner(self, model: Any, optimizer: AdamW, make: MakeLearner, loss: Loss) -> Learner:
        """As the strategy has it."""
        return self._strategy.learner(model, optimizer, make, loss)


def whole_loss(model: Any, loss: Loss, more: list[Any] | None = None) -> Any:
    """The model and what is asked of it as one module, so that a call of it is a step forward; ``more``: parameters
    beside the model's."""
    import torch

    class WholeLoss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.more = torch.nn.ParameterList(more or [])

        def forward(self, part: Any) -> torch.Tensor:
            return loss(part)

    return WholeLoss()


class DataParallel:
    """torch's DistributedDataParallel."""

    whole = True

    def learner(self, model: Any, optimizer: AdamW, make: MakeLearner, loss: Loss) -> Learner:
        """Each process has all of it."""
        from torch.nn.parallel import DistributedDataParallel

        learner = make(model, optimizer)
        known = {id(each) for each in model.parameters()}
        more = [each for each in learner.parameters if id(each) not in known]
        shared = DistributedDataParallel(whole_loss(model, loss, more))
        learner.attend(shared, shared.no_sync)
        return learner
