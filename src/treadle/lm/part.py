"""What a training is given at once: some samples, laid out as its loss takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """Some samples of a step: how much in them is learned, tokens without padding, and what the loss is made of.
    ``said``: where it is a list, the loss leaves there what the model said of each sample."""

    learned: int
    tokens: int
    data: Any
    said: list[Any] | None = None
