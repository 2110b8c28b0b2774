"""The training step of tasks that learn for a number of epochs; the task says how."""

from __future__ import annotations

from typing import Any, Literal

from treadle.core.errors import UserError
from treadle.core.plugins import load
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.evals.task import FITS, load_task
from treadle.lm.fitting import FitSettings, Fitted, carries
from treadle.lm.model import Model
from treadle.stages.develop.carrying import Carried, looks_at
from treadle.stages.develop.curve import Curve
from treadle.stages.develop.resuming import PLACE
from treadle.stages.develop.training import same_base, write_about
from treadle.text.dataset import Dataset


@step(name="develop.fit", version=6, packages=("torch", "transformers"), tolerance=0.05, place=PLACE)
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
    method: Literal["full", "lora"],
    learning_rate: float,
    epochs: int,
    max_length: int,
    looks: dict[str, Any] | None,
    seed: int,
    run: Run,
) -> Model:
    """Fine-tune a model for a task on all of the training split, from the base as it is or ``pretrained``.

    ``trainer`` is a function of the project that does it in place of the task's own.
    """
    chosen = load_task(task, run.folder)
    train: Any = load(FITS, trainer, run.folder).value if trainer else chosen.fit
    base = same_base(base_model, fingerprint, pretrained)
    examples = dataset.examples("train")
    judged_by, seen = looks_at(looks, dataset)
    settings = FitSettings(learning_rate, epochs, max_length, seed, looks=judged_by, method=method)

    curve = Curve()

    def on_step(step: int, steps: int, loss: float) -> None:
        run.log(step, loss=loss)
        run.progress(step, steps, "steps", f"{curve.add(loss)} loss {loss:.2f}".lstrip())

    source = pretrained.digest if pretrained else fingerprint
    begun = pretrained.path() if pretrained else base.path
    code = [task, task_version, trainer, trainer_version]
    with run.create(Model) as model, Carried(run, *code, dataset.digest, source, repr(settings)) as carry:
        result = train(begun, model.path, examples, settings, carry if carries(train) else on_step)
        if not isinstance(result, Fitted):
            said = f"{trainer or f'task {task}'} gave {type(result).__name__}"
            raise UserError(f"develop.fit: {said}; expected a Fitted, with the loss and the steps")
        model.add_documents(name for example in (*examples, *seen) for name in example.documents)
        if pretrained is not None:
            model.add_documents(pretrained.document_ids())
        how: dict[str, Any] = {"method": method, "epochs": epochs, "learning_rate": learning_rate}
        write_about(model.path, base, task, how | ({"trainer": trainer} if trainer else {}))
        figures = {"loss": result.loss, "steps": result.steps, "truncated": result.truncated, **result.figures}
        run.summary(examples=len(examples), **figures)
        made = model.commit()
        carry.kept()
        return made
