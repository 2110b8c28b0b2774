"""A training as part of a step: here or in other processes, with its checkpoints, its progress, and how it is judged
under way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from treadle.core.runs import Run
from treadle.lm.held_out import MOST, Looks
from treadle.stages.develop.curve import Curve
from treadle.stages.develop.resuming import checkpoints_for, remove
from treadle.text.dataset import Dataset, Example

if TYPE_CHECKING:
    from treadle.lm.course import StepReport


class Carried(AbstractContextManager["Carried"]):
    """Calls one training of a step; what ``parts`` (digests, settings) tell from every other goes on after a kill."""

    def __init__(self, run: Run, *parts: Any) -> None:
        self._run, self._checkpoints, self._curve = run, checkpoints_for(run, *parts), Curve()

    def __exit__(self, *_: object) -> None:
        self._checkpoints.__exit__()

    def __call__(self, function: Callable[..., Any], arguments: tuple[Any, ...], settings: Any) -> Any:
        """What ``function`` makes of arguments and settings, where ``develop.on`` says."""
        from treadle.lm.launcher import carry_out

        run = self._run
        return carry_out(
            run.place, run.scratch / "job", function, arguments, settings, self._checkpoints, self._on_step
        )

    def kept(self) -> None:
        """The model is in the store, so the checkpoints are not needed any more."""
        remove(self._checkpoints)

    def _on_step(self, report: StepReport) -> None:
        run, speed = self._run, report.tokens_per_second
        run.log(report.step, loss=report.loss, tokens_per_second=speed, lr=report.learning_rate, **report.figures)
        told = [f"loss {report.loss:.3f}", *(f"{name} {value:.3f}" for name, value in report.figures.items())]
        drawn = self._curve.add(report.loss)
        run.progress(report.step, report.steps, "steps", f"{drawn} {', '.join(told)}, {speed:.0f} tok/s".lstrip())


def looks_at(asked: dict[str, Any] | None, dataset: Dataset) -> tuple[Looks | None, Sequence[Example]]:
    """How a training is judged under way, and by which examples of the validation split; their documents are then
    documents of the model, for which weights are kept depends on them."""
    if asked is None:
        return None, ()
    examples = dataset.examples("validation")[:MOST]
    return Looks(**asked, samples=tuple(examples)), examples
