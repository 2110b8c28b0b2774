"""ZeRO: gradients and moments cut among processes (``zero2``), or the weights as well (``zero3``), by DeepSpeed.

S. Rajbhandari et al., ZeRO: Memory Optimizations Toward Training Trillion Parameter Models, arXiv:1910.02054. A
checkpoint holds all of it whole, as that of every other strategy. Nothing is moved to the CPU or to a disk, and
its kernels are not compiled.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from treadle.core.errors import MissingExtra
from treadle.lm.joined_team import whole_loss
from treadle.lm.learner import MOMENTS, AdamW, Learner
from treadle.lm.sharded import filled
from treadle.lm.team import Loss, MakeLearner

if TYPE_CHECKING:
    import torch


_COMPILED = "deepspeed_shm_comm"  # exchanges between processes of one machine; torch's own serve as well


class Zero2:
    """Each process holds the weights, and its part of gradients and moments."""

    whole = False
    package = "deepspeed"  # that has to be installed
    stage = 2

    def learner(self, model: Any, optimizer: AdamW, make: MakeLearner, loss: Loss) -> Learner:
        """``MissingExtra`` without DeepSpeed."""
        os.environ.setdefault("DS_BUILD_OPS", "0")
        try:
            import deepspeed
        except ModuleNotFoundError:
            raise MissingExtra("deepspeed", extra="deepspeed") from None
        # It would be compiled under a lock in the user's cache that a killed process never gives back.
        deepspeed.ops.__compatible_ops__.pop(_COMPILED, None)
        return _ZeroLearner(deepspeed, model, whole_loss(model, loss), optimizer, self.stage)


class Zero3(Zero2):
    """Each process holds its part of everything."""

    stage = 3


class _ZeroLearner(Learner):
    """DeepSpeed's engine as a learner."""

    def __init__(self, deepspeed: Any, model: Any, module: Any, optimizer: AdamW, stage: int) -> None:
        import torch

        self._before = 0  # steps that came from a checkpoint
        self._live = [p for p in model.parameters() if p.requires_grad]
        self.size = sum(p.numel() for p in self._live)
        adam = torch.optim.AdamW(optimizer.groups(self._live), lr=optimizer.learning_rate, betas=optimizer.betas)
        self._engine, self._adam, _, _ = deepspeed.initialize(
            model=module,
            optimizer=adam,
            dist_init_required=False,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 1,
                "gradient_clipping": optimizer.clip,
                "bf16": {"enabled": optimizer.dtype is not torch.float32},
                "zero_optimization": {"stage": stage},
                "zero_allow_untested_optimizer": True,
                "wall_clock_breakdown": False,
                "steps_per_print": 1 << 40,
            },
        )

    def learn(self, part: Any, divisor: float, processes: int, *, last: bool) -> torch.Tensor:
        """As ``Learner``."""
        self._engine.set_gradient_accumulation_boundary(last)
        loss = self._engine(part) / divisor
        self._engine.backward(loss * processes)
        return loss.detach()  # type: ignore[no-any-return]

    def value(self, part: Any) -> torch.Tensor:
        """As ``Learner``."""
        import torch

        with torch.no_grad():
            return self._engine(part)  # type: ignore[no-any-return]

    def step(self, learning_rate: float) -> float:
        """As ``Learner``."""
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        return float(self._engine.get_global_grad_norm() or 0.0)

    def state(self) -> dict[str, torch.Tensor]:
        """As ``Learner``; every process has to ask, and each gets all."""
        import torch
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        self._link()
        done = torch.tensor(float(self._engine.global_steps + self._before))
        tensors: dict[str, torch.Tensor] = {}
        for place, live in enumerate(self._live):
            tensors[f"{place}.weight"] = safe_get_full_fp32_param(live).detach().float().cpu().view(_shape(live))
            for name in MOMENTS:
                if name == "step":
                    tensors[f"{place}.step"] = done.clone()
                    continue
                held = safe_get_full_optimizer_state(live, name)
                tensors[f"{place}.{name}"] = held.detach().float().cpu().view(_shape(live))
        return tensors

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """As ``Learner``."""
        import torch
        from deepspeed.runtime.zero import GatheredParameters
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        self._make_moments(tensors["0.step"])
        for place, live in enumerate(self._live):
            weight = tensors[f"{place}.weight"]
            with torch.no_grad(), GatheredParameters([live], modifier_rank=0, enabled=hasattr(live, "ds_id")):
                live.copy_(weight)
            safe_set_full_fp32_param(live, weight)
            for name in MOMENTS:
                if name != "step":
                    safe_set_full_optimizer_state(live, tensors[f"{place}.{name}"], name)

    def _make_moments(self, step: torch.Tensor) -> None:
        """DeepSpeed makes them in the first step; to be set they have to be there."""
        import torch

        self._before = int(step)
        zero = self._engine.optimizer
        pieces = getattr(zero, "single_partition_of_fp32_groups", None) or zero.fp32_partitioned_groups_flat
        for piece in pieces:
            moments = {name: torch.zeros_like(piece) for name in MOMENTS if name != "step"}
            zero.optimizer.state[piece] = {"step": step.clone(), **moments}
        self._link()

    def _link(self) -> None:
        """Let the moments of every group be found: DeepSpeed looks once, after the first group's first step."""
        zero = self._engine.optimizer
        if hasattr(zero, "_hp_optimizer_states_linked"):
            zero._hp_optimizer_states_linked = False
            zero._lazy_init_hp_params_optimizer_state()

    def finished(self, model: Any, fresh: Callable[[], Any]) -> Any:
        """As ``Learner``: what was cut is put into another model."""
        return filled(fresh(), self.state())

    def finish(self) -> None:
        """The engine holds nothing that is put back."""


def _shape(live: Any) -> Any:
    return getattr(live, "ds_shape", live.shape)
