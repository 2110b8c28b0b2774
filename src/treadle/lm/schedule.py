"""How the learning rate goes over the steps of a training."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["linear", "cosine", "warmup-stable-decay", "constant"]
_DECAY = 0.2  # share of the steps in which warmup-stable-decay falls (A. Hägele et al., arXiv:2405.18392)


def learning_rate_at(
    step: int, steps: int, peak: float, warmup: float, schedule: Schedule = "linear", floor: float = 0.0
) -> float:
    """The rate of ``step`` (from 1): up to ``peak`` over the share ``warmup`` of the steps, then as ``schedule`` says.

    ``floor`` is the share of ``peak`` at which cosine and warmup-stable-decay end.
    """
    warm = max(1, round(warmup * steps))
    if step <= warm:
        return peak * step / warm
    if schedule == "constant":
        return peak
    if schedule == "linear":
        return peak * (steps - step + 1) / (steps - warm + 1)
    if schedule == "cosine":
        gone = (step - warm) / max(1, steps - warm)
        return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * gone)))
    falling = max(1, round(_DECAY * steps))
    left = steps - step + 1
    if left >= falling:
        return peak
    return peak * (floor + (1 - floor) * (1 - math.sqrt(1 - left / falling)))
