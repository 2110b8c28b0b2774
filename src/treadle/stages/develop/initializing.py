"""A model from nothing, in place of a base model: random weights and the tokenizer of this project."""

from __future__ import annotations

from typing import Any

from treadle.core.driver import Driver
from treadle.core.plugins import load
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.core.store import Store
from treadle.lm.initial_model import Architecture
from treadle.lm.model import Model
from treadle.lm.own_model import GROUP
from treadle.lm.tokenizer_training import TrainedTokenizer
from treadle.record.version import FROM_NOTHING, NO_BASE_LICENSE
from treadle.stages.develop.settings import InitSettings


def initialize(driver: Driver, settings: InitSettings, tokenizer: TrainedTokenizer, license: str | None) -> Model:  # noqa: A002
    """The model that training begins from. ``license``: of the model that the tokenizer was taken from."""
    return driver.run(
        create_model,
        tokenizer,
        architecture=settings.architecture,
        size=settings.size,
        context=settings.context,
        own=settings.model,
        own_version=load(GROUP, settings.model, driver.folder).version if settings.model else "",
        taken_from=settings.tokenizer,
        license=license or NO_BASE_LICENSE,
    )


@step(name="develop.create_model", version=2, packages=("torch", "transformers"))
def create_model(
    tokenizer: TrainedTokenizer,
    *,
    architecture: Architecture,
    size: str,
    context: int,
    own: str | None,
    own_version: str,
    taken_from: str | None,
    license: str,  # noqa: A002 (the setting's name)
    seed: int,
    run: Run,
) -> Model:
    """Random weights of an architecture, drawn from the seed; width and depth are those that come near a size."""
    from treadle.lm.base_model import BaseModel
    from treadle.lm.initial_model import create_model as create
    from treadle.stages.develop.training import write_about

    with run.create(Model) as model:
        asked: dict[str, Any] = {"architecture": architecture, "size": size, "context": context, "seed": seed}
        figures = create(model.path, tokenizer.path(), **asked, own=own, project=run.folder)
        words = f"the tokenizer of {taken_from}" if taken_from else "a tokenizer learned here"
        count = f"{figures['parameters']:,} parameters"
        origin = f"{own or architecture} of {count} with {words}, weights drawn from seed {seed}"
        base = BaseModel(FROM_NOTHING, model.path, tokenizer.digest, license, origin)
        write_about(model.path, base, "text", {"method": "none", **figures})
        model.add_documents(tokenizer.document_ids())
        run.summary(**{name: float(value) for name, value in figures.items()})
        return model.commit()


def beginning_of(model: Model, store: Store) -> Model | None:
    """What fine-tuning began from, back over all turns; None where that is not known, or no longer in the store."""
    seen: set[str] = set()
    while model.about()["task"] != "text":
        before = model.about()["training"].get("start")
        if not isinstance(before, str) or before in seen or not store.has(before):
            return None
        seen.add(before)
        model = Model(before, store)
    return model
