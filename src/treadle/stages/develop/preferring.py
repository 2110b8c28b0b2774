"""Preferences: of two answers to one question, the wanted one becomes the more probable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.lm.conversation import with_system_prompt
from treadle.lm.held_out import MOST
from treadle.lm.model import Model
from treadle.stages.develop.beginning import begin, beside_of
from treadle.stages.develop.carrying import Carried, looks_at
from treadle.stages.develop.resuming import PLACE
from treadle.stages.develop.settings import DevelopSettings
from treadle.stages.develop.training import came_from, same_base, write_about
from treadle.text.dataset import Dataset, Example

if TYPE_CHECKING:
    from treadle.lm.answer_pairs import Pair

METRIC = "preference_accuracy"
_RATES = {"full": 2e-5, "lora": 2e-4}


def prefer_on(
    driver: Driver,
    settings: DevelopSettings,
    dataset: Dataset,
    start: Model | None,
    system_prompt: str | None,
    **base: str,
) -> Model:
    """The model after learning from the dataset's pairs; before it, ``start`` or the base as it is."""
    assert settings.prefer is not None
    wanted = settings.prefer.model_dump(exclude={"instead", "learning_rate"})
    return driver.run(
        prefer,
        dataset,
        start,
        beside_of(driver, start, settings.method),
        **base,
        **wanted,
        weights=settings.method,
        learning_rate=settings.prefer.learning_rate or _RATES[settings.method],
        max_length=settings.max_length,
        looks=settings.looks,
        system_prompt=system_prompt,
    )


@step(name="develop.prefer", version=6, packages=("tokenizers", "torch", "transformers"), tolerance=0.05, place=PLACE)
def prefer(
    dataset: Dataset,
    start: Model | None,
    beside: Model | None,
    *,
    base_model: str,
    fingerprint: str,
    method: Literal["dpo"],
    beta: float,
    weights: Literal["full", "lora"],
    learning_rate: float,
    epochs: int,
    tokens: int | None,
    batch: int,
    max_length: int,
    looks: dict[str, Any] | None,
    system_prompt: str | None,
    seed: int,
    run: Run,
) -> Model:
    """Direct preference optimization on the examples of the training split that have a rejected answer, from ``start``
    or from the base as it is; judged by those of validation. ``beside``: what the adapter of ``start`` lies beside,
    where that is a model of this project."""
    from treadle.lm.preference import PreferenceSettings, train_on_preferences
    from treadle.lm.tokenizer import ChatTokenizer

    base = same_base(base_model, fingerprint, start)
    begun = begin(base, start, beside, weights)
    tokenizer = ChatTokenizer.load(begun.folder)
    examples = [example for example in dataset.examples("train") if example.rejected]
    if not examples:
        raise UserError(
            "develop.prefer: no example of the training split has a rejected answer; give pairs (columns chosen and "
            "rejected), users' corrections, or prepare.synthesize with hard_negatives"
        )
    pairs = list(_pairs(tokenizer, examples, system_prompt))
    judged = [each for each in dataset.examples("validation") if each.rejected][:MOST]
    judged_by, _ = looks_at(looks, dataset)
    settings = PreferenceSettings(
        beta=beta,
        method=weights,
        learning_rate=learning_rate,
        epochs=epochs,
        tokens=tokens,
        batch=batch,
        width=max_length,
        seed=seed,
        looks=judged_by,
    )
    told = (dataset.digest, start.digest if start else fingerprint, repr(settings), system_prompt or "")
    with run.create(Model) as model, Carried(run, *told) as carry:
        held_out = list(_pairs(tokenizer, judged, system_prompt))
        settings = replace(settings, adapter=begun.adapter)
        result = carry(train_on_preferences, (begun.folder, model.path, pairs, held_out), settings)
        model.add_documents(name for place in result.pairs_seen for name in examples[place].documents)
        if judged_by is not None:  # which weights are kept depends on them
            model.add_documents(name for example in judged for name in example.documents)
        how: dict[str, Any] = {"method": method, "beta": beta, "weights": weights, "learning_rate": learning_rate}
        if weights == "lora":
            how["adapter"] = {"base": begun.base}
        if start is not None:
            model.add_documents(start.document_ids())
            how["start"] = start.digest
        write_about(model.path, base, "chat", how, came_from(start))
        held = dict(zip(("held_out_margin", "held_out_accuracy"), result.held_out or (), strict=False))
        run.summary(
            loss=result.loss,
            margin=result.margin,
            accuracy=result.accuracy,
            steps=result.steps,
            tokens=result.tokens,
            tokens_per_second=result.tokens / result.seconds,
            pairs=len(result.pairs_seen),
            **held,
            **result.figures,
            **{rule: float(len(places)) for rule, places in result.dropped.items()},
        )
        made = model.commit()
        carry.kept()
        return made


def _pairs(tokenizer: Any, examples: Sequence[Example], system_prompt: str | None) -> Iterator[Pair]:
    """Each example's conversation and its rejected one, as the model's template writes them."""
    from treadle.lm.answer_pairs import pair_of
    from treadle.lm.packing import TokenizedExample

    def encoded(messages: Sequence[Mapping[str, Any]], example: Example) -> TokenizedExample:
        told = with_system_prompt(messages, system_prompt)
        return TokenizedExample(*tokenizer.encode_for_training(told, tools=example.tools))

    for example in examples:
        rejected = list(example.rejected)
        own = example.messages[0]
        if own["role"] == "system" and rejected and rejected[0]["role"] != "system":
            rejected = [own, *rejected]  # what the maker put before the conversation
        yield pair_of(encoded(example.messages, example), encoded(rejected, example))
