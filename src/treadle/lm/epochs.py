"""Lessons of whole examples, all of them once an epoch: of classifiers, taggers, readers, embedders, translators and
students.

Samples that are held out are numbered behind those that are learned from, and are only ever looked at.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from treadle.lm.fitting import FitSettings, Fitted
from treadle.lm.part import Part
from treadle.lm.taught import Taught, Teaching

_SORTED_TOGETHER = 50  # batches; sorting all by length would feed short texts first


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples ``first`` ... ``last - 1`` of a batch, which is that of ``step``; 0 where it is only looked at."""

    step: int
    batch: Sequence[int]
    first: int
    last: int

    @property
    def members(self) -> Sequence[int]:
        """The numbers of the samples."""
        return self.batch[self.first : self.last]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a model makes of some samples: the loss, summed over what is learned in them; and what it said, where it
    is asked."""

    loss: Any
    said: Callable[[], Iterable[Any]] = tuple


class Epochs:
    """``outcome`` is of a model on a piece. ``batches`` in their order, ``tokens`` and ``learned`` (by default 1) of
    every sample, ``held_out`` in batches too. ``metrics`` names what ``scores`` makes of what was said; by default
    pairs of an answer and what is right. ``begin`` sees what is learned in a step before it is."""

    seed: int | None = None  # what is drawn goes on from step to step
    figures: tuple[str, ...] = ()

    def __init__(
        self,
        outcome: Callable[[Any, Piece], Outcome],
        batches: Sequence[Sequence[Sequence[int]]],
        tokens: Sequence[int],
        how: Teaching,
        *,
        learned: Sequence[int] | None = None,
        held_out: Sequence[Sequence[int]] = (),
        metrics: tuple[str, ...] = (),
        begin: Callable[[Sequence[Part]], None] | None = None,
        name: str = "training",
        setting: str = "learning_rate",
    ) -> None:
        self._outcome, self._tokens, self._how = outcome, tokens, how
        self._learned, self._held_out = learned, held_out
        self._batches = [batch for epoch in batches for batch in epoch]
        self.steps, self.epoch = len(self._batches), len(batches[0])
        self.metrics, self.name, self.begin = metrics, name, begin
        self.remedy = f"lower {setting} (now {how.learning_rate:g})"

    def size(self, step: int) -> int:
        """As ``Lessons``."""
        return len(self._batches[step - 1])

    def part(self, step: int, first: int, last: int) -> Part:
        """As ``Lessons``."""
        return self._part(Piece(step, self._batches[step - 1], first, last))

    def held_out(self) -> list[Part]:
        """As ``Judged``."""
        return [self._part(Piece(0, batch, 0, len(batch))) for batch in self._held_out]

    def loss(self, model: Any, part: Part) -> Any:
        """As ``Lessons``."""
        found = self._outcome(model, part.data)
        if part.said is not None:
            part.said.extend(found.said())
        return found.loss

    def scores(self, said: Sequence[Any]) -> dict[str, float]:
        """As ``Judged``."""
        return {name: METRICS[name](said) for name in self.metrics} if said else {}

    def rate(self, step: int) -> float:
        """As ``Paced``."""
        return self._how.rate(step, self.steps)

    def _part(self, piece: Piece) -> Part:
        members = piece.members
        learned = len(members) if self._learned is None else sum(self._learned[i] for i in members)
        return Part(learned, sum(self._tokens[i] for i in members), piece)


def accuracy(said: Sequence[tuple[Any, Any]]) -> float:
    """Share of answers that are right."""
    return sum(bool(answer == right) for answer, right in said) / len(said)


def f1(said: Sequence[tuple[Any, Any]]) -> float:
    """F1 of each answer that occurs, their mean; as scikit-learn's ``f1_score(average="macro")``. None is no answer,
    and has none of its own."""
    kinds = {kind for pair in said for kind in pair if kind is not None}
    found = []
    for kind in kinds:
        both = sum(answer == right == kind for answer, right in said)
        found.append(2 * both / sum((answer == kind) + (right == kind) for answer, right in said))
    return sum(sorted(found)) / len(found) if found else 0.0


METRICS: dict[str, Callable[[Sequence[Any]], float]] = {"accuracy": accuracy, "f1": f1}


def batches_of_like_length(lengths: Sequence[Any], size: int, seed: int) -> list[list[int]]:
    """All indices once, in random order but with rows of like length together, so that little is padding."""
    draw = random.Random(seed)  # noqa: S311 - an order, not a secret
    order = list(range(len(lengths)))
    draw.shuffle(order)
    stretch = size * _SORTED_TOGETHER
    batches: list[list[int]] = []
    for start in range(0, len(order), stretch):
        near = sorted(order[start : start + stretch], key=lambda i: lengths[i])
        batches += [near[at : at + size] for at in range(0, len(near), size)]
    draw.shuffle(batches)
    return batches


def passes(lengths: Sequence[Any], size: int, settings: Any) -> list[list[list[int]]]:
    """The batches of each epoch, by the ``epochs`` and the ``seed`` of settings."""
    return [batches_of_like_length(lengths, size, settings.seed + epoch) for epoch in range(settings.epochs)]


def in_batches(first: int, last: int, size: int) -> list[list[int]]:
    """The numbers from ``first`` to ``last - 1``, for what is held out."""
    return [list(range(at, min(at + size, last))) for at in range(first, last, size)]


def teaching(settings: FitSettings, **more: Any) -> Teaching:
    """How a model is taught by settings of a fit."""
    names = ("learning_rate", "warmup", "clip", "weight_decay", "seed", "threads", "micro", "precision")
    return Teaching(**{name: getattr(settings, name) for name in names} | more)


def fitted(
    taught: Taught, truncated: int = 0, *, figures: Mapping[str, float] | None = None, **environment: Any
) -> Fitted:
    """What came of it."""
    now = taught.progress
    told = {**taught.figures, **(figures or {})}
    return Fitted(now.loss, now.done, truncated, taught.environment | environment, told)
