"""The training step of chat: fine-tuning a generator on what the assistant says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from treadle.core.digest import blake3_bytes
from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.lm.model import ABOUT, FORMAT, Model
from treadle.lm.tokens import Tokens
from treadle.record.version import FROM_NOTHING, NOT_RECORDED
from treadle.stages.develop.beginning import begin
from treadle.stages.develop.carrying import Carried, looks_at
from treadle.stages.develop.resuming import PLACE
from treadle.text.dataset import Dataset, Example

FEEDBACK = "feedback"  # the field of an example that is a user's correction


@step(name="develop.train", version=9, packages=("torch", "transformers"), tolerance=0.05, place=PLACE)
def train(
    tokens: Tokens,
    dataset: Dataset,
    start: Model | None,
    pretrained: Model | None,
    *,
    base_model: str,
    fingerprint: str,
    method: Literal["full", "lora"],
    learning_rate: float,
    budget: int,
    max_length: int,
    replay: float,
    looks: dict[str, Any] | None,
    seed: int,
    run: Run,
) -> Model:
    """Fine-tune a causal language model on the assistant's turns, for a fixed budget of tokens; from ``start`` where
    there is one, else from the base, ``pretrained`` or as it is. ``lora`` goes on with the adapter of ``start``, beside
    the same base.

    Corrections come first, the newest before older ones, and leave the share ``replay`` of the budget to the rest.
    The model's documents are exactly those of the examples it saw, and those of the model it started from.
    """
    from treadle.lm.training import TrainingSettings
    from treadle.lm.training import train as fine_tune

    begun = start or pretrained
    base = same_base(base_model, fingerprint, begun)
    beginning = begin(base, begun, pretrained, method)
    seen = dataset.examples("train")
    places = _mixed(tokens.lengths("train"), seen, budget, replay, f"{seed} {start.digest if start else ''}")
    every = tokens.examples("train")
    examples = [every[place] for place in places]
    judged_by, judged = looks_at(looks, dataset)
    if judged_by is not None:
        judged_by = judged_by.of(tokens.examples("validation")[: len(judged)])
    settings = TrainingSettings(
        method=method,
        learning_rate=learning_rate,
        token_budget=budget,
        width=max_length,
        seed=seed,
        looks=judged_by,
    )
    source = begun.digest if begun else fingerprint
    told = (tokens.digest, source, repr(settings), blake3_bytes(repr(places).encode()))
    with run.create(Model) as model, Carried(run, *told) as carry:
        settings = replace(settings, adapter=beginning.adapter)
        result = carry(fine_tune, (beginning.folder, model.path, examples), settings)
        model.add_documents(name for example in judged for name in example.documents)
        model.add_documents(name for place in result.examples_seen for name in seen[places[place]].documents)
        how: dict[str, Any] = {"method": method, "budget": budget, "learning_rate": learning_rate}
        if method == "lora":
            how["adapter"] = {"base": beginning.base}
        if begun is not None:
            model.add_documents(begun.document_ids())
            how["start"] = begun.digest
        write_about(model.path, base, "chat", how, came_from(start))
        run.summary(
            loss_first=result.first_loss,
            loss=result.loss,
            tokens=result.tokens,
            steps=result.steps,
            tokens_per_second=result.tokens / result.seconds,
            examples=len(result.examples_seen),
            threads=float(result.environment["threads"]),
            **result.figures,
        )
        made = model.commit()
        carry.kept()
        return made


def _mixed(lengths: Sequence[int], examples: Sequence[Example], budget: int, replay: float, salt: str) -> list[int]:
    """Places of the examples that a training run takes: all, or corrections and a sample of the rest where there are
    corrections or the model was trained before. ``salt`` makes each run's sample another one."""
    corrections = [place for place, example in enumerate(examples) if FEEDBACK in example.fields]
    if not corrections and salt.endswith(" "):
        return list(range(len(examples)))
    corrections.sort(key=lambda place: (examples[place].fields[FEEDBACK], place), reverse=True)
    first = set(corrections)
    rest = [place for place in range(len(examples)) if place not in first]
    rest.sort(key=lambda place: blake3_bytes(f"{salt} {examples[place].id}".encode()))
    taken: list[int] = []
    room = int(budget * (1 - replay))
    for place in corrections:
        if lengths[place] <= room:
            room -= lengths[place]
            taken.append(place)
    room = budget - sum(lengths[place] for place in taken)
    for place in rest:
        if room <= 0:
            break
        room -= lengths[place]
        taken.append(place)
    return taken


def same_base(name: str, fingerprint: str, model: Model | None = None) -> Any:
    """The base model, which has to be the one that was there when the step's key was made. Where there is none,
    ``model``, as far as it has come, stands for it."""
    from treadle.lm.base_model import BaseModel, resolve

    if name == FROM_NOTHING and model is not None:
        return BaseModel(path=model.path(), **model.about()["base_model"])
    base = resolve(name)
    if base.digest != fingerprint:
        raise UserError(f"develop.base_model: {name} changed while it was read; run the same command again")
    return base


def came_from(start: Model | None) -> dict[str, str] | None:
    """What is known of the base of a model that came from outside, or was trained from one; None otherwise."""
    base = start.about()["base_model"] if start is not None else None
    return base if base is not None and base["name"] == NOT_RECORDED else None


def write_about(folder: Any, base: Any, task: str, how: dict[str, Any], known: dict[str, str] | None = None) -> None:
    """``treadle.json`` of a model folder; ``known`` is what is known of the base in place of ``base``."""
    about = {
        "format": FORMAT,
        "task": task,
        "base_model": known
        or {"name": base.name, "digest": base.digest, "license": base.license, "origin": base.origin},
        "training": how,
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True))
