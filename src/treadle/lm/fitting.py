"""What every training for a number of epochs is told, and what it tells: of classifiers, and of all that learn like
them from whole examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

OnStep = Callable[[int, int, float], None]  # step, steps, loss
# Calls a training with its arguments and settings, so that it goes on after a kill, and here or in several processes.
Carry = Callable[[Callable[..., Any], tuple[Any, ...], Any, OnStep], Any]


@dataclass(frozen=True, slots=True)
class FitSettings:
    """``learning_rate`` is the highest, after warm-up; ``max_length`` in tokens: longer texts are cut, and counted."""

    learning_rate: float
    epochs: int
    max_length: int
    seed: int


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
