"""A model that is taught, from a folder to a folder: what all trainings have in common around their course."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from treadle.core.errors import UserError
from treadle.lm import torch_runtime
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import Course, Lessons, OnStep, Progress, Telling
from treadle.lm.held_out import Looks, Watch
from treadle.lm.learner import AdamW, all_of
from treadle.lm.schedule import learning_rate_at
from treadle.lm.team import MakeLearner, Team
from treadle.lm.torch_runtime import Precision
from treadle.lm.word_table import WordTable, words_of


@dataclass(frozen=True, slots=True)
class Teaching:
    """How the weights are updated, and on what. ``threads`` None: all that this process may use; ``micro``: samples at
    a time, None for all of a step."""

    learning_rate: float
    warmup: float = 0.06
    clip: float = 1.0
    weight_decay: float = 0.01
    seed: int = 0
    threads: int | None = None
    micro: int | None = None
    precision: Precision = "auto"
    betas: tuple[float, float] = (0.9, 0.999)
    decays_vectors: bool = True

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step: up, and evenly down."""
        return learning_rate_at(step, steps, self.learning_rate, self.warmup)


class Paced(Lessons, Protocol):
    """Lessons that say how fast each step is learned."""

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        ...


@dataclass(frozen=True, slots=True)
class Taught:
    """``parameters``: how many were trained. ``environment``: threads, device, precision, versions."""

    progress: Progress
    parameters: int
    seconds: float
    checkpoint_seconds: float
    environment: dict[str, Any]

    @property
    def figures(self) -> dict[str, float]:
        """What every training tells beside its loss."""
        now = self.progress
        told = {"resumed": now.resumed, "spikes": len(now.spikes), "checkpoint_seconds": self.checkpoint_seconds}
        return {**told, **({} if now.kept is None else {"kept_step": now.kept})}


def teach(
    base: Path,
    out: Path,
    begun: Callable[[], Any],
    lessons_of: Callable[[Any], Paced],
    how: Teaching,
    *,
    make: MakeLearner = all_of,
    texts: Iterable[Sequence[int]] | None = None,
    highest: int = 0,
    looks: Looks | None = None,
    ready: Callable[[Any], None] = lambda _model: None,
    done: Callable[[Any], None] = lambda _model: None,
    saved: Literal["bfloat16", "float32"] = "float32",
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
    team: Team | None = None,
) -> Taught:
    """Teach the model that ``begun`` makes by the lessons that are made for it; write it, with the tokenizer of the
    folder ``base``, to the folder ``out``, whole or not at all.

    ``make`` says what is updated. ``texts``: the ids of all that the model will see, where they are known; then only
    their rows of its table of words are held and updated; where they are not, ``highest`` is the largest id among them.
    ``ready`` sees the model before the first step, ``done``
    after the last, both in the type that it computes in. ``looks`` are for lessons that are ``Judged``. Goes on from
    the newest of ``checkpoints`` where there is one; in a ``team`` each process calls it alike. ``UserError`` for ids
    that the model does not have, and a loss that is no number.
    """
    torch, transformers = torch_runtime.libraries()
    started, team = time.monotonic(), team or Team()
    try:
        with torch_runtime.session(how.threads, how.seed) as threads:
            device = torch_runtime.device()
            precision = torch_runtime.precision(how.precision, device)
            table = WordTable(texts)
            fresh = begun()
            _check_fits(base, fresh, max(highest, table.highest))
            model = table.narrow(fresh.to(device)).train()
            lessons: Any = lessons_of(model)
            optimizer = AdamW(
                how.learning_rate,
                how.clip,
                how.weight_decay,
                getattr(torch, precision),
                betas=how.betas,
                decays_vectors=how.decays_vectors,
            )
            learner = team.learner(model, optimizer, make, lambda part: lessons.loss(model, part))
            ready(model)
            watch = Watch(looks, lessons, model) if looks is not None else None
            told: Telling | None = lessons if getattr(lessons, "figures", ()) else None
            course = Course(
                lessons,
                learner,
                lessons.rate,
                micro=how.micro,
                team=team,
                device=device,
                watch=watch,
                told=told,
                begin=getattr(lessons, "begin", None),
            )
            progress = course.run(checkpoints, on_step)
            done(model)
            model = table.widen(learner.finished(model, lambda: table.narrow(begun())))
            if team.leads:
                learner.write_beside(out)  # first: a folder without the model's config is no model yet
                torch_runtime.save(model.to("cpu", getattr(torch, saved)), base, out)
    finally:
        torch_runtime.release_memory()
    return Taught(
        progress=progress,
        parameters=learner.size,
        seconds=time.monotonic() - started,
        checkpoint_seconds=checkpoints.seconds if checkpoints is not None else 0.0,
        environment={
            "threads": threads,
            "device": device,
            "precision": precision,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    )


def _check_fits(base: Path, model: Any, highest: int) -> None:
    """``UserError`` where the tokenizer says words that the model's table does not have. A model that is not of
    transformers may look them up in a way of its own."""
    if not type(model).__module__.startswith("transformers."):
        return
    rows = getattr(words_of(model), "num_embeddings", None)
    if rows is not None and highest >= rows:
        raise UserError(
            f"{base}: the tokenizer gives id {highest}, and the model has {rows} words; they do not belong together:"
            " take a base model with its own tokenizer.json"
        )
