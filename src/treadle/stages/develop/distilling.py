"""Distillation: a smaller model that learns from a larger one."""

from __future__ import annotations

from typing import Any

from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.evals.task import Task, load_task
from treadle.lm.model import Model
from treadle.stages.develop.carrying import Carried, looks_at
from treadle.stages.develop.resuming import PLACE
from treadle.stages.develop.settings import DevelopSettings
from treadle.stages.develop.training import write_about
from treadle.text.dataset import Dataset


def distill_on(
    driver: Driver,
    settings: DevelopSettings,
    chosen: Task,
    dataset: Dataset,
    teacher: Model,
    system_prompt: str | None,
    **named: str,
) -> Model:
    """The student of ``teacher``, by what the file says."""
    asked = settings.distill
    assert asked is not None
    usual = settings.learning_rate if settings.method == "full" else None  # all of the student's weights are trained
    return driver.run(
        distill,
        dataset,
        teacher,
        **named,
        layers=None if asked.layers == "half" else asked.layers,
        temperature=asked.temperature,
        learning_rate=asked.learning_rate or usual or chosen.learning_rate,
        epochs=asked.epochs,
        max_length=settings.max_length,
        looks=settings.looks,
        system_prompt=system_prompt,
    )


@step(name="develop.distill", version=6, packages=("tokenizers", "torch", "transformers"), tolerance=0.05, place=PLACE)
def distill(
    dataset: Dataset,
    start: Model,
    *,
    task: str,
    task_version: str,
    layers: int | None,
    temperature: float,
    learning_rate: float,
    epochs: int,
    max_length: int,
    looks: dict[str, Any] | None,
    system_prompt: str | None,
    seed: int,
    run: Run,
) -> Model:
    """A student that begins with some layers of its teacher, ``start``, half where none are named, and learns from what
    the teacher thinks of the training split. What the teacher was made of, the student is made of too."""
    from treadle.lm.distillation import DistillSettings

    chosen = load_task(task, run.folder)
    assert chosen.distill is not None
    known = start.about()
    if known["task"] != task:
        raise UserError(f"develop.distill.teacher: a model for task {known['task']} cannot teach one for {task}")
    examples = dataset.examples("train")
    judged_by, seen = looks_at(looks, dataset)
    settings = DistillSettings(
        learning_rate=learning_rate,
        epochs=epochs,
        max_length=max_length,
        seed=seed,
        layers=layers,
        temperature=temperature,
        system_prompt=system_prompt,
        looks=judged_by,
    )
    told = (task, task_version, dataset.digest, start.digest, repr(settings))
    with run.create(Model) as model, Carried(run, *told) as carry:
        result = chosen.distill(start.path(), model.path, examples, settings, carry)
        model.add_documents(name for example in (*examples, *seen) for name in example.documents)
        model.add_documents(start.document_ids())
        how: dict[str, Any] = {"method": "distill", "start": start.digest, "layers": result.environment["layers"]}
        how |= {"epochs": epochs, "learning_rate": learning_rate, "temperature": temperature}
        write_about(model.path, None, task, how, known["base_model"])
        run.summary(
            loss=result.loss,
            steps=result.steps,
            truncated=result.truncated,
            examples=len(examples),
            layers=len(result.environment["layers"]),
            **result.figures,
        )
        made = model.commit()
        carry.kept()
        return made
