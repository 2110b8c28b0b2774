"""The training step of tasks that learn for a number of epochs; the task says how."""

from __future__ import annotations

from typing import Any

from treadle.core.plugins import load
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.evals.task import FITS, load_task
from treadle.lm.fitting import FitSettings
from treadle.lm.model import Model
from treadle.stages.develop.training import same_base, write_about
from treadle.text.dataset import Dataset


@step(name="develop.fit", version=1, packages=("torch", "transformers"), tolerance=0.05)
def fit(
    dataset: Dataset,
    pretrained: Model | None,
    *,
    task: str,
    task_version: str,
    trainer: str | None,
    trainer_version: str,
    base_model: str,
    fingerprint: str,
    learning_rate: float,
    epochs: int,
    max_length: int,
    seed: int,
    run: Run,
) -> Model:
    """Fine-tune a model for a task on all of the training split, from the base as it is or ``pretrained``.

    ``trainer`` is a function of the project that does it in place of the task's own.
    """
    train: Any = load(FITS, trainer, run.folder).value if trainer else load_task(task, run.folder).fit
    named = {"trainer": trainer} if trainer else {}
    base = same_base(base_model, fingerprint, pretrained)
    examples = dataset.examples("train")
    settings = FitSettings(learning_rate=learning_rate, epochs=epochs, max_length=max_length, seed=seed)

    def on_step(step: int, steps: int, loss: float) -> None:
        run.log(step, loss=loss)
        run.progress(step, steps, "steps", f"loss {loss:.2f}")

    with run.create(Model) as model:
        begun = pretrained.path() if pretrained else base.path
        result = train(begun, model.path, examples, settings, on_step)
        model.add_documents(name for example in examples for name in example.documents)
        if pretrained is not None:
            model.add_documents(pretrained.document_ids())
        write_about(model.path, base, task, {"epochs": epochs, "learning_rate": learning_rate} | named)
        run.summary(loss=result.loss, steps=result.steps, truncated=result.truncated, examples=len(examples))
        return model.commit()
