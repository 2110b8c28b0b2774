"""What a model is for: what it learns from, how it learns, how it is asked, and what it is judged by.

A task is one object, and comes in by the entry-point group ``treadle.tasks`` or as ``module:object`` of a project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from treadle.core.errors import UserError
from treadle.core.plugins import load
from treadle.evals.item import Item, Output
from treadle.evals.metric import Metric, Need
from treadle.lm.fitting import Carry, Fitted
from treadle.text.dataset import Example

if TYPE_CHECKING:
    from treadle.evals.results import Evaluation

GROUP = "treadle.tasks"
FITS = "treadle.fits"
# Scores of the base model itself, with and without worked examples in the prompt.
BASE, FEW_SHOT = "base", "few_shot"

Asking = Literal["chat", "extract", "classify", "tag", "embed"]
PATHS: dict[Asking, str] = {
    "chat": "/v1/chat/completions",
    "extract": "/v1/chat/completions",
    "classify": "/v1/classify",
    "tag": "/v1/tag",
    "embed": "/v1/embeddings",
}


# Puts the examples' questions to the model in a folder: (model, examples, metrics, run, *, engine, system_prompt,
# max_tokens). What does not concern a task it leaves alone.
Answering = Callable[..., "Evaluation"]
# From the model folder ``base`` into the folder ``out``: (base, out, examples, settings, on_step). With a parameter
# ``carry`` in place of ``on_step`` (see ``lm.fitting``) it goes on after a kill, and runs in several processes. The
# same input gives the same weights.
Fit = Callable[..., Fitted]
# A student of the teacher: (teacher, out, examples, settings, carry); settings are lm.distillation.DistillSettings.
Distill = Callable[[Path, Path, Sequence[Example], Any, Carry], Fitted]


class Simple(Protocol):
    """What needs no language model."""

    def __call__(self, train: Sequence[Example], items: Sequence[Item], *, seed: int) -> list[Output]:
        """An output an item, from what the training examples show."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """``maker`` makes the examples, unless the file names another; ``metrics`` likewise. ``gives`` is what metrics may
    need of its models.

    ``fit`` trains for epochs; None for chat, which trains for a budget of tokens that prepare has counted. ``distill``
    trains a student. ``learning_rate`` is taken where the file names none, ``lora_learning_rate`` where adapters
    are trained in place of all weights, which a ``fit`` can that follows ``settings.method`` and has the attribute
    ``adapts``; None: the same.
    ``baselines`` are computed by ``simple``, or are the base model itself. ``architectures`` can be made from nothing.
    ``heads``: how the class names of its models end. ``asking``: by which requests a server is asked.
    ``labeled``: examples are a text and a label, else conversations. ``gguf``: its models can be written as one.
    """

    name: str
    maker: str
    metrics: tuple[str, ...]
    answer: Answering
    fit: Fit | None = None
    distill: Distill | None = None
    learning_rate: float = 1e-4
    lora_learning_rate: float | None = None
    gives: frozenset[Need] = frozenset({"answer"})
    simple: Mapping[str, Simple] = field(default_factory=dict)
    baselines: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    asking: Asking = "chat"
    labeled: bool = False
    gguf: bool = False

    def require(self, metrics: Sequence[Metric]) -> None:
        """``UserError`` for a metric that asks for what a model of the task does not give."""
        for metric in metrics:
            if metric.needs not in self.gives:
                has = " and ".join(sorted(self.gives))
                raise UserError(f"metric {metric.name} needs {metric.needs}; a model for task {self.name} gives {has}")


def load_task(name: str, folder: Path | None = None) -> Task:
    """The task of that name; ``UserError`` with the nearest known one when there is none."""
    task = load(GROUP, name, folder).value
    if not isinstance(task, Task):
        raise UserError(f"task {name!r} is a {type(task).__name__}; expected a treadle.evals.task.Task")
    return replace(task, name=name)  # as the file calls it, so that it can be loaded by its name


def task_version(name: str, folder: Path) -> str:
    """Of its code, where that is not ours: it enters the keys of the steps that use the task."""
    return load(GROUP, name, folder).version
