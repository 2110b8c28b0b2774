"""Weights, gradients and moments cut among processes: torch's ``fully_shard`` (FSDP2).

A checkpoint holds them whole, in the form of every other training, so it is gone on from by as many processes as one
likes, and by one. It passes through the memory of the first process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from treadle.lm.joined_team import whole_loss
from treadle.lm.learner import MOMENTS, AdamW, Learner
from treadle.lm.team import Loss, MakeLearner

if TYPE_CHECKING:
    import torch


class Sharded:
    """FSDP2: each block of the model is gathered when it is needed."""

    whole = False

    def learner(self, model: Any, optimizer: AdamW, make: MakeLearner, loss: Loss) -> Learner:
        """Cut the model, and give who updates this process's part."""
        import torch
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        short = None if optimizer.dtype is torch.float32 else optimizer.dtype
        policy = MixedPrecisionPolicy(param_dtype=short, reduce_dtype=torch.float32 if short else None)
        for block in list(_blocks(model)):
            fully_shard(block, mp_policy=policy)
        module = fully_shard(whole_loss(model, loss), mp_policy=policy)
        return _ShardedLearner(model, module, optimizer)


class _ShardedLearner(Learner):
    """AdamW on this process's pieces, in float32."""

    def __init__(self, model: Any, module: Any, optimizer: AdamW) -> None:
        import torch

        self._module, self._clip = module, optimizer.clip
        self._live = [p for p in model.parameters() if p.requires_grad]
        self._adam = torch.optim.AdamW(optimizer.groups(self._live), lr=optimizer.learning_rate, betas=optimizer.betas)
        self.size = sum(p.numel() for p in self._live)

    def learn(self, part: Any, divisor: float, processes: int, *, last: bool) -> torch.Tensor:
        """As ``Learner``."""
        self._module.set_requires_gradient_sync(last)
        loss = self._module(part) / divisor
        (loss * processes).backward()
        return loss.detach()  # type: ignore[no-any-return]

    def value(self, part: Any) -> torch.Tensor:
        """As ``Learner``."""
        import torch

        with torch.no_grad():
            return self._module(part)  # type: ignore[no-any-return]

    def step(self, learning_rate: float) -> float:
        """As ``Learner``."""
        import torch

        norm = torch.nn.utils.clip_grad_norm_(self._live, self._clip)
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        return float(_whole(norm))

    def state(self) -> dict[str, torch.Tensor]:
        """As ``Learner``; every process has to ask, and each gets all."""
        tensors: dict[str, torch.Tensor] = {}
        for place, live in enumerate(self._live):
            tensors[f"{place}.weight"] = _whole(live.detach()).cpu()
            for name, value in self._adam.state[live].items():
                tensors[f"{place}.{name}"] = _whole(value).cpu()
        return tensors

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """As ``Learner``."""
        import torch
        from torch.distributed.tensor import distribute_tensor

        with torch.no_grad():
            for place, live in enumerate(self._live):

                def piece(name: str, place: int = place, live: Any = live) -> Any:
                    held = tensors[f"{place}.{name}"].to(live.device)
                    return distribute_tensor(held, live.device_mesh, live.placements)

                live.copy_(piece("weight"))
                if f"{place}.step" not in tensors:
                    continue
                kept = {name: piece(name) for name in MOMENTS if name != "step"}
                self._adam.state[live] = {"step": tensors[f"{place}.step"].clone(), **kept}

    def finished(self, model: Any, fresh: Callable[[], Any]) -> Any:
        """As ``Learner``: what was cut is put into another model."""
        return filled(fresh(), self.state())

    def finish(self) -> None:
        """Nothing is held beside the pieces."""


def filled(model: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """A model with the weights of a ``state``."""
    for place, live in enumerate(p for p in model.parameters() if p.requires_grad):
        live.data = tensors[f"{place}.weight"]
    return model


def _whole(value: Any) -> Any:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _blocks(module: Any) -> Iterator[Any]:
    """What a model repeats: the members of its outermost lists."""
    import torch

    for child in module.children():
        if isinstance(child, torch.nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)
