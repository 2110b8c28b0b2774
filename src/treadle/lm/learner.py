"""What is updated in a training step: all parameters, or low-rank corrections beside the linear layers.

Either way the numbers that are learned are kept in float32 while the model computes in a shorter type. Rounding every
update to bfloat16 would lose most of them: plain bfloat16 AdamW ended at 17.3 perplexity where float32 copies reached
15.6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.adapter import FOLDER, read_adapter, write_adapter
from treadle.lm.word_table import table_of

if TYPE_CHECKING:
    import torch


MOMENTS = ("step", "exp_avg", "exp_avg_sq")
Method = Literal["full", "lora"]


class Adapting(Protocol):
    """Settings that say which weights are trained. ``adapter``: the folder of one to go on from; ``keeps_adapter``:
    whether it is also written beside the model."""

    @property
    def method(self) -> Method: ...

    @property
    def lora_rank(self) -> int: ...

    @property
    def lora_alpha(self) -> float: ...

    @property
    def adapter(self) -> Path | None: ...

    @property
    def keeps_adapter(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class AdamW:
    """``clip`` bounds the gradient's norm; ``dtype`` is what the model computes in. ``decays_vectors``: whether
    norms and biases decay too, which pretraining leaves out."""

    learning_rate: float
    clip: float
    weight_decay: float
    dtype: torch.dtype
    betas: tuple[float, float] = (0.9, 0.999)
    decays_vectors: bool = True

    def groups(self, parameters: list[Any]) -> list[dict[str, Any]]:
        """As torch's optimizers take them: what decays, and what does not."""
        matrices = [p for p in parameters if p.ndim >= 2 or self.decays_vectors]
        vectors = [p for p in parameters if not (p.ndim >= 2 or self.decays_vectors)]
        groups = [{"params": matrices, "weight_decay": self.weight_decay}]
        return groups + ([{"params": vectors, "weight_decay": 0.0}] if vectors else [])


class Learner:
    """AdamW on float32 copies of ``parameters``, which are themselves turned to the computing type; on themselves where
    that is float32, and where they are a table of ``tables``, whose rows are turned when they are looked up. ``fixed``
    are not updated, but turned to the computing type as long as it trains."""

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        optimizer: AdamW,
        fixed: Sequence[torch.nn.Parameter] = (),
        tables: Sequence[torch.nn.Embedding] = (),
    ) -> None:
        import torch

        self._fixed = [(parameter, parameter.data) for parameter in fixed]
        for parameter in fixed:
            parameter.data = parameter.data.to(optimizer.dtype)

        self._live: list[Any] = parameters
        self._masters: list[Any] = []
        looked_up = {id(table.weight) for table in tables}
        for live in parameters:
            # Parameters only: a rotary embedding's buffer in bfloat16 would be off by a radian after 256 tokens.
            if optimizer.dtype is torch.float32 or id(live) in looked_up:
                live.data = live.data.to(torch.float32)
                self._masters.append(live)
                continue
            master = live.detach().clone().to(torch.float32)
            live.data = live.data.to(optimizer.dtype)
            self._masters.append(master)
        self._copied = [pair for pair in zip(self._masters, self._live, strict=True) if pair[0] is not pair[1]]
        self._turned = [table.register_forward_hook(_turning(optimizer.dtype)) for table in tables]
        self._clip = optimizer.clip
        groups = optimizer.groups(self._masters)
        self._adam = torch.optim.AdamW(groups, lr=optimizer.learning_rate, betas=optimizer.betas, fused=True)
        self.size = sum(p.numel() for p in parameters)
        self._loss: Callable[[Any], Any] | None = None
        self._apart: Callable[[], AbstractContextManager[Any]] = nullcontext

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What the model computes with, of what is updated."""
        return self._live

    def attend(
        self, loss: Callable[[Any], Any], apart: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        """Learn by this loss of some samples. Processes do not exchange gradients inside of ``apart``."""
        self._loss, self._apart = loss, apart

    def learn(self, part: Any, divisor: float, processes: int, *, last: bool) -> torch.Tensor:
        """Add the gradients of some samples' loss, divided; ``last``: more come before the step. The divided loss.

        Processes take the mean of their gradients, and each has a part of the sum: hence ``processes``.
        """
        assert self._loss is not None, "attend to something first"
        with nullcontext() if last else self._apart():
            loss = self._loss(part) / divisor
            (loss if processes == 1 else loss * processes).backward()
        return loss.detach()  # type: ignore[no-any-return]

    def value(self, part: Any) -> torch.Tensor:
        """The loss of some samples, summed; nothing is learned."""
        import torch

        assert self._loss is not None, "attend to something first"
        with torch.no_grad():
            return self._loss(part)  # type: ignore[no-any-return]

    def step(self, learning_rate: float) -> float:
        """Clip, update the copies, round them into the model, forget the gradients. The gradient's norm before."""
        import torch

        for master, live in self._copied:  # only now, when nothing is kept for the way back any more
            master.grad, live.grad = (None if live.grad is None else live.grad.to(torch.float32)), None
        gradients = [master.grad for master in self._masters if master.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # The update divides by this as it reads the gradients; scaling them beforehand would read and write them once
        # more. The small number is torch's clip_grad_norm_'s.
        self._adam.grad_scale = ((norm + 1e-6) / self._clip).clamp(min=1.0)  # type: ignore[attr-defined]
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self._adam.step()
        with torch.no_grad():
            if self._copied:
                torch._foreach_copy_([live for _, live in self._copied], [master for master, _ in self._copied])
        self.forget()
        return float(norm)

    def forget(self) -> None:
        """Drop the gradients."""
        for parameter in (*self._live, *self._masters):
            parameter.grad = None

    def state(self) -> dict[str, torch.Tensor]:
        """Weights in float32 and the optimizer's moments, by name: all that another step depends on."""
        tensors: dict[str, torch.Tensor] = {}
        for place, master in enumerate(self._masters):
            tensors[f"{place}.weight"] = master.detach()
            for name, value in self._adam.state[master].items():
                tensors[f"{place}.{name}"] = value
        return tensors

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take what ``state`` gave; ``KeyError`` or ``RuntimeError`` when it is of another model."""
        import torch

        with torch.no_grad():
            for place, (master, live) in enumerate(zip(self._masters, self._live, strict=True)):
                master.copy_(tensors[f"{place}.weight"])
                if live is not master:
                    live.copy_(master)
                if f"{place}.step" in tensors:  # one that no loss depends on, such as an unused pooler, has no moments
                    self._adam.state[master] = {name: tensors[f"{place}.{name}"].to(master.device) for name in MOMENTS}

    def finished(self, model: Any, fresh: Callable[[], Any]) -> Any:
        """The model with what was learned, whole; ``fresh`` gives another that it may be put into."""
        self.finish()
        return model

    def finish(self) -> None:
        """Put the float32 copies into the model."""
        for master, live in zip(self._masters, self._live, strict=True):
            master.grad = None
            live.data = master.data
        for parameter, data in self._fixed:
            parameter.data = data
        for hook in self._turned:
            hook.remove()

    def write_beside(self, out: Path) -> None:
        """Write what the model's folder keeps beside the weights, once it has finished: nothing."""


def _turning(dtype: torch.dtype) -> Any:
    def turn(_table: Any, _ids: Any, rows: torch.Tensor) -> torch.Tensor:
        return rows.to(dtype)

    return turn


def all_of(model: Any, optimizer: AdamW) -> Learner:
    """Whoever updates all parameters of a model; what it holds fixed (a table of positions, say) stays as it is."""
    parameters = list(model.parameters())
    learned, fixed = ([p for p in parameters if p.requires_grad is asked] for asked in (True, False))
    table = table_of(model)
    return Learner(learned, optimizer, fixed, [] if table is None else [table])


def learner_by(model: Any, optimizer: AdamW, settings: Adapting) -> Learner:
    """Whoever updates all weights, or adapters beside them, as the settings say."""
    if settings.method == "full":
        return all_of(model, optimizer)
    rank, alpha, start, kept = settings.lora_rank, settings.lora_alpha, settings.adapter, settings.keeps_adapter
    return LoraLearner(model, optimizer, rank=rank, alpha=alpha, start=start, kept=kept)


@dataclass(frozen=True, slots=True)
class Adapted:
    """Which parts of a model LoRA trains: ``layers`` by an adapter, and ``heads`` whole, by name. Heads are what is
    above the body of a model that says no words, and what its checkpoint did not have. The head that says words stays
    as it is, and what is before it is a layer like others."""

    layers: Mapping[str, torch.nn.Linear]
    heads: Mapping[str, torch.nn.Parameter]

    @classmethod
    def of(cls, model: Any) -> Adapted:
        """Of a transformers model; a part that is held fixed is left out."""
        import torch

        words = model.get_output_embeddings()
        body = {id(each) for each in getattr(model, "base_model", model).parameters()}
        new = torch_runtime.new_parameters(model)
        heads = {
            name: each
            for name, each in model.named_parameters()
            if words is None and each.requires_grad and (id(each) not in body or name in new)
        }
        whole = {id(each) for each in heads.values()}
        layers = {
            name: layer
            for name, layer in model.named_modules()
            if isinstance(layer, torch.nn.Linear)
            and layer is not words
            and layer.weight.requires_grad
            and id(layer.weight) not in whole
        }
        return cls(layers, heads)


class LoraLearner(Learner):
    """Low-rank adaptation (arXiv:2106.09685): ``B @ A * alpha / rank`` beside every linear layer, and heads whole.

    Merged at the end, because some engines ignore an adapter without a word; the adapter is written beside it.
    """

    def __init__(
        self,
        model: Any,
        optimizer: AdamW,
        *,
        rank: int,
        alpha: float,
        start: Path | None = None,
        kept: bool = True,
    ) -> None:
        """``start``: the folder of an adapter to go on from, whose rank and alpha it keeps. ``kept``: whether the
        adapter is written beside the model."""
        import torch

        begun, rank, alpha = read_adapter(start) if start is not None else ({}, rank, alpha)
        self._model, self._kept = model, kept
        self._rank, self._alpha, self._scale = rank, alpha, alpha / rank
        parts = Adapted.of(model)
        layers = parts.layers
        if not layers:
            raise UserError(
                f"develop.method: lora needs linear layers, and {model.config.model_type} has none; use full"
            )
        if begun and begun.keys() != layers.keys():
            raise UserError(f"{start}: an adapter for another base, whose layers are others; set develop.method: full")
        # The base's own digits, to merge into: what the model computes with is rounded.
        self._base = {name: p.detach().clone() for name, p in model.named_parameters() if name not in parts.heads}
        for name, parameter in model.named_parameters():
            if name in self._base:
                parameter.requires_grad_(False)
                parameter.data = parameter.data.to(optimizer.dtype)
        self._pairs: dict[str, tuple[torch.nn.Parameter, torch.nn.Parameter]] = {}
        self._hooks = []
        for name, layer in layers.items():
            first = torch.empty(rank, layer.in_features)  # drawn here whatever the device: the same numbers everywhere
            torch.nn.init.kaiming_uniform_(first, a=5**0.5)
            last = torch.zeros(layer.out_features, rank)
            if begun:
                first, last = _fitting(begun[name], first, last, f"{start}: {name}")
            down = torch.nn.Parameter(first.to(layer.weight.device))
            up = torch.nn.Parameter(last.to(layer.weight.device))
            self._pairs[name] = (down, up)
            self._hooks.append(layer.register_forward_hook(self._correction(down, up)))
        super().__init__([*(p for pair in self._pairs.values() for p in pair), *parts.heads.values()], optimizer)

    def finish(self) -> None:
        """Merge in float32 and take the hooks away: what is left is an ordinary model."""
        super().finish()
        for hook in self._hooks:
            hook.remove()
        for name, parameter in self._model.named_parameters():
            if name in self._base:
                parameter.data = self._base[name]
        for name, (down, up) in self._pairs.items():
            self._model.get_submodule(name).weight.data += (up.detach() @ down.detach()) * self._scale

    def write_beside(self, out: Path) -> None:
        """Write the adapter into the folder's ``adapter``, where it is kept."""
        if self._kept:
            write_adapter(out / FOLDER, self._pairs, rank=self._rank, alpha=self._alpha)

    def _correction(self, down: torch.nn.Parameter, up: torch.nn.Parameter) -> Any:
        scale = self._scale

        def add(_layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            return output + (inputs[0] @ down.T @ up.T) * scale

        return add


def _fitting(
    pair: tuple[torch.Tensor, torch.Tensor], first: torch.Tensor, last: torch.Tensor, where: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The pair, which has to be of these sizes."""
    if (pair[0].shape, pair[1].shape) != (first.shape, last.shape):
        raise UserError(f"{where} is of other sizes than the model's; an adapter for another base")
    return pair
