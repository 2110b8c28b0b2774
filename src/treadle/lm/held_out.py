"""How a training is judged under way, by what it does not learn from: when it stops, and which weights it keeps.

Every so many steps the model is looked at, with nothing dropped out. The best weights so far lie beside those that are
learned, and are in the checkpoints, so that a training that was killed keeps and stops as one that was not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from treadle.core.errors import UserError

if TYPE_CHECKING:
    import torch

    from treadle.lm.learner import Learner
    from treadle.lm.part import Part
    from treadle.lm.team import Team

MOST = 500  # samples that are looked at: the first of them
_TIMES = 4  # looks an epoch, unless somebody says
_BEST = "best."  # before the names of the best weights in a checkpoint


@dataclass(frozen=True, slots=True)
class Looks:
    """``metric``: the loss, or another of the training's; the best weights by it are kept. ``patience``: looks without
    a better one after which it stops, None for never. ``every``: steps from one to the next, None for a quarter of an
    epoch. ``samples``: what is looked at, in the form that the training takes."""

    metric: str = "loss"
    patience: int | None = None
    every: int | None = None
    samples: Any = field(default=(), repr=False)

    def of(self, samples: Any) -> Looks:
        """The same at other samples."""
        return replace(self, samples=samples)


class Judged(Protocol):
    """Lessons that hold samples which are not learned from. ``metrics``: beside the loss, larger is better.
    ``epoch``: steps in which all that is learned from comes once."""

    name: str
    steps: int
    epoch: int
    metrics: tuple[str, ...]

    def held_out(self) -> Sequence[Part]:
        """The samples that are not learned from, cut as they fit into the memory; each with a list ``said``."""
        ...

    def scores(self, said: Sequence[Any]) -> dict[str, float]:
        """The metrics, of what was said of samples."""
        ...


class Watch:
    """The looks at one training: ``seen`` has step and value of each, ``kept`` the step of the best."""

    def __init__(self, looks: Looks, lessons: Judged, model: Any) -> None:
        """``UserError`` when there is nothing to look at, or the training has no such metric."""
        self._parts = lessons.held_out()
        if not self._parts:
            raise UserError(
                f"{lessons.name}: develop.keep_best and stop_early judge by the validation split, and there is nothing "
                "in it that can be; leave them out, or give prepare.split a larger share of validation"
            )
        if looks.metric not in ("loss", *lessons.metrics):
            known = ", ".join(("loss", *lessons.metrics))
            raise UserError(f"develop.keep_best: {looks.metric!r} is not of this training; expected one of {known}")
        self._looks, self._lessons, self._model = looks, lessons, model
        self._every = looks.every or -(-min(lessons.epoch, lessons.steps) // _TIMES)
        self._best: dict[str, torch.Tensor] = {}
        self.seen: list[tuple[int, float]] = []

    @property
    def metric(self) -> str:
        """By which it is judged."""
        return self._looks.metric

    @property
    def kept(self) -> int:
        """The step of the best look, the first of equal ones; 0 before there is one."""
        return max(self.seen, key=lambda look: self._worth(look[1]))[0] if self.seen else 0

    @property
    def over(self) -> bool:
        """Whether the last looks were none better for so long that it stops."""
        since = sum(step > self.kept for step, _ in self.seen)
        return self._looks.patience is not None and since >= self._looks.patience

    def due(self, step: int) -> bool:
        """Whether the model is looked at after this step."""
        return step % self._every == 0 or step == self._lessons.steps

    def look(self, step: int, learner: Learner, team: Team) -> float:
        """Judge the model as it is, and hold its weights when it is the best so far. Every process of a team has to."""
        found = self._scores(learner)[self.metric]
        # What the first process finds goes for all: one that rounds otherwise would stop at another step.
        (value,) = team.total(found if team.leads else 0.0)
        self.seen.append((step, value))
        if self.kept == step:
            weights = {name: value for name, value in learner.state().items() if name.endswith(".weight")}
            self._best = {name: value.to("cpu", copy=True) for name, value in weights.items()}
        return value

    def restore_best(self, step: int, learner: Learner) -> None:
        """Give the model the best weights, where those it has after ``step`` are others."""
        if self._best and self.kept != step:
            learner.restore(learner.state() | self._best)

    def state(self) -> tuple[dict[str, torch.Tensor], list[tuple[int, float]]]:
        """Tensors and notes for a checkpoint."""
        return {_BEST + name: value for name, value in self._best.items()}, list(self.seen)

    def restore(self, tensors: dict[str, torch.Tensor], seen: Sequence[Sequence[float]]) -> None:
        """Take what ``state`` gave."""
        self.seen = [(int(step), float(value)) for step, value in seen]
        self._best = {name.removeprefix(_BEST): value for name, value in tensors.items() if name.startswith(_BEST)}

    def _worth(self, value: float) -> float:
        if value != value:
            return -float("inf")
        return -value if self.metric == "loss" else value

    def _scores(self, learner: Learner) -> dict[str, float]:
        learning = self._model.training
        self._model.eval()
        try:
            loss, learned, said = 0.0, 0, list[Any]()
            for part in self._parts:
                fresh = replace(part, said=[])
                loss += float(learner.value(fresh))
                learned += fresh.learned
                said += fresh.said or ()
        finally:
            self._model.train(learning)
        return {"loss": loss / max(1, learned), **self._lessons.scores(said)}
