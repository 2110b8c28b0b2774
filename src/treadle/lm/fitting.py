"""What every training for a number of epochs is told, and what it tells: of classifiers, and of all that learn like
them from whole examples.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from treadle.core.errors import UserError

if TYPE_CHECKING:
    from treadle.lm.held_out import Looks
    from treadle.lm.learner import Method
    from treadle.lm.torch_runtime import Precision

OnStep = Callable[[int, int, float], None]  # step, steps, loss
# Calls a training with its arguments and settings, so that it goes on after a kill, and here or in several processes.
Carry = Callable[[Callable[..., Any], tuple[Any, ...], Any], Any]


@dataclass(frozen=True, slots=True)
class FitSettings:
    """``learning_rate`` is the highest, after ``warmup`` (a share of the steps); ``max_length`` in tokens: longer texts
    are cut, and counted. ``batch_size``: examples of a step. ``threads`` None: all that this process may use;
    ``micro``: samples at a time, None for all of a step. ``looks``: how it is judged under way, where it is; its
    samples are examples, or what a training takes. ``method``: all weights, or adapters beside the base's linear layers
    (merged in the end) and the new head."""

    learning_rate: float = 5e-5
    epochs: int = 3
    max_length: int = 256
    seed: int = 0
    batch_size: int = 16
    warmup: float = 0.06
    clip: float = 1.0
    weight_decay: float = 0.01
    threads: int | None = None
    micro: int | None = None
    precision: Precision = "auto"
    looks: Looks | None = None
    method: Method = "full"
    lora_rank: int = 16
    lora_alpha: float = 32.0
    adapter: ClassVar[Path | None] = None
    keeps_adapter: ClassVar[bool] = False  # without the head that was learned with it, it is of no use

    def at(self, samples: Callable[[Any], Any]) -> FitSettings:
        """The same with the examples that are looked at as a training takes them."""
        return self if self.looks is None else replace(self, looks=self.looks.of(samples(self.looks.samples)))

    def check(self) -> None:
        """``UserError`` for what is out of range."""
        if not 0 < self.learning_rate < 1:
            raise UserError(f"develop.learning_rate: {self.learning_rate!r} is out of range")
        if self.method not in ("full", "lora"):
            raise UserError(f"develop.method: {self.method!r}; expected full or lora")
        for name in ("epochs", "batch_size", "max_length", "lora_rank"):
            value = getattr(self, name)
            if not 1 <= value <= 1 << 20:
                raise UserError(f"develop.{name}: {value!r} is out of range")


@dataclass(frozen=True, slots=True)
class Fitted:
    """``loss``: mean over the last tenth of the steps; ``truncated`` counts cut texts.

    ``environment``: threads, device, precision, versions; ``figures`` join the run.
    """

    loss: float
    steps: int
    truncated: int
    environment: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


def adapts(fit: Callable[..., Any]) -> bool:
    """Whether a way to train follows ``settings.method``, and says so by its attribute ``adapts``."""
    return bool(getattr(fit, "adapts", False))


def whole(fit: Callable[..., Any]) -> bool:
    """Whether a way to train has to have all of the model in every process, and says so by its attribute ``whole``."""
    return bool(getattr(fit, "whole", False))


def judged_by(fit: Callable[..., Any]) -> tuple[str, ...] | None:
    """By what a way to train can be judged under way beside its loss, as its attribute ``judged_by`` says; None where
    it does not say."""
    found: tuple[str, ...] | None = getattr(fit, "judged_by", None)
    return found


def carries(fit: Callable[..., Any]) -> bool:
    """Whether a way to train takes ``carry``: then it goes on after a kill, runs in several processes and may be
    judged under way."""
    return "carry" in inspect.signature(fit).parameters
