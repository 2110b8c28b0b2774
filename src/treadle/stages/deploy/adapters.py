"""A release whose adapter stays beside its base, so that an engine loads the base once and each adapter into it."""

from __future__ import annotations

import shutil
from pathlib import Path

from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.lm.adapter import FOLDER
from treadle.lm.model import ABOUT, Model, Optimized

_PARTS = (".json", ".jinja", ".txt", ".model", ".safetensors")
_OTHERS = (ABOUT, "treadle-source.json")  # of the base's folder, not of the base


def unmerged(driver: Driver, model: Model) -> Optimized:
    """The model as base and adapter. ``UserError`` where it has no adapter, or its base is not there."""
    base = None
    if not model.pending:
        of = _base_of(model)
        if of != model.about()["base_model"]["digest"]:
            if not driver.runs.store.has(of):
                raise UserError(
                    f"deploy.adapter: the base of its adapter, model {of[:11]}, is not in this project's store; treadle"
                    " pull fetches it, or set deploy.adapter: merged"
                )
            base = Model(of, driver.runs.store)
    return driver.run(unmerge, model, base)


@step(name="deploy.unmerge", version=1)
def unmerge(model: Model, base: Model | None, *, run: Run) -> Optimized:
    """The model's base as it is, with its adapter beside it. ``base``: where that is a model of this project, not one
    from outside."""
    folder = base.path() if base is not None else _outside(model)
    with run.create(Optimized) as optimized:
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix in _PARTS and path.name not in _OTHERS:
                shutil.copyfile(path, optimized.path / path.name)
        shutil.copyfile(model.path(ABOUT), optimized.path / ABOUT)
        shutil.copytree(model.path() / FOLDER, optimized.path / FOLDER, copy_function=shutil.copyfile)
        optimized.add_documents(model.document_ids())
        weights = {path: path.stat().st_size for path in optimized.path.rglob("*.safetensors")}
        adapter = sum(size for path, size in weights.items() if path.parent.name == FOLDER)
        run.summary(bytes_base=sum(weights.values()) - adapter, bytes_adapter=adapter)
        return optimized.commit()


def _outside(model: Model) -> Path:
    """The folder of the base model that the adapter was trained beside."""
    from treadle.lm.base_model import resolve

    of, name = _base_of(model), model.about()["base_model"]["name"]
    found = resolve(name)
    if found.digest != of:
        raise UserError(
            f"deploy.adapter: the adapter of model {model.digest[:11]} is for {name} of {of[:11]}, and {name} is"
            f" {found.digest[:11]} now; put the former back, or set deploy.adapter: merged"
        )
    return found.path


def _base_of(model: Model) -> str:
    of = model.adapter_base()
    if of is None:
        raise UserError(
            f"deploy.adapter: model {model.digest[:11]} has no adapter to keep apart, as chat with develop.method:"
            " lora leaves one; set deploy.adapter: merged"
        )
    return of
