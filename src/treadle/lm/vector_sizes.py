"""To which sizes the vectors of a model may be cut: those it was trained for (Matryoshka representation learning,
Kusupati et al. 2022). Any other model's vectors say nothing when they are cut.

``config.json`` says so as ``matryoshka_dimensions`` (a list) or ``is_matryoshka`` (any size), as vLLM reads it too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class VectorSizes:
    """In numbers a vector: ``sizes``, or any (None) up to the ``whole`` one; 0 where its size is not known."""

    sizes: tuple[int, ...] | None
    whole: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> VectorSizes | None:
        """What a model's ``config.json`` says; None where its vectors are not to be cut."""
        names = ("hidden_size", "d_model", "n_embd", "dim")
        whole = next((size for name in names if type(size := config.get(name)) is int), 0)
        listed = config.get("matryoshka_dimensions")
        if isinstance(listed, list) and listed and all(type(size) is int and size > 0 for size in listed):
            return cls(tuple(sorted({*listed, *([whole] if whole else [])})), whole)
        return cls(None, whole) if config.get("is_matryoshka") is True else None

    def allows(self, size: int) -> bool:
        """Whether vectors may be cut to so many numbers."""
        return size in self.sizes if self.sizes is not None else not self.whole or size <= self.whole

    def __str__(self) -> str:
        return ", ".join(map(str, self.sizes)) if self.sizes is not None else f"at most {self.whole}"


def cut_vector(vector: Sequence[float], size: int) -> list[float]:
    """The first ``size`` numbers, of length 1 again; of zeros what is nothing but zeros."""
    kept = vector[:size]
    length = math.sqrt(sum(x * x for x in kept))
    return [x / length for x in kept] if length > 0 else list(kept)
