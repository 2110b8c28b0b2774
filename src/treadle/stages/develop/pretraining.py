"""Pretraining before fine-tuning: the base model, or one made from nothing, reads the project's own text first,
without its tests.

Held out is every document of a group that validation or test has; how well the model predicts those, in bits a byte,
is said of the base and of what came of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Literal

from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.lm.model import Model
from treadle.lm.objective import Objective
from treadle.lm.tokens import Tokens
from treadle.stages.develop.carrying import Carried
from treadle.stages.develop.resuming import CHECKPOINTS as CHECKPOINTS
from treadle.stages.develop.resuming import PLACE
from treadle.stages.develop.settings import PretrainSettings
from treadle.stages.develop.training import same_base, write_about
from treadle.text.corpus import Corpus
from treadle.text.dataset import Dataset
from treadle.text.held_out import documents_on
from treadle.text.mixture import repeats_of

_RATE, _RATE_FROM_NOTHING = 2e-4, 1e-3  # what was learned stays at the first; J. Kaplan et al., arXiv:2001.08361, D.6


def pretrain_on(
    driver: Driver,
    settings: PretrainSettings,
    cleaned: Corpus,
    dataset: Dataset,
    initial: Model | None,
    *,
    base_model: str,
    fingerprint: str,
) -> Model:
    """Pack the text that may be learned from, and train the base model on it, or ``initial``."""
    base = {"base_model": base_model, "fingerprint": fingerprint}
    tokens = driver.run(pack_text, cleaned, dataset, initial, **base, width=settings.width)
    wanted = settings.model_dump(exclude={"width"})
    wanted["learning_rate"] = settings.learning_rate or (_RATE if initial is None else _RATE_FROM_NOTHING)
    model = driver.run(pretrain, tokens, initial, **base, **wanted)
    if not driver.planning:
        made = driver.runs.producer(model.digest)
        driver.listener.say(_said(made.metrics if made is not None else {}))
    return model


def _said(figures: Mapping[str, float]) -> str:
    """What was learned, for a person."""
    before, after = figures.get("bits_per_byte_before"), figures.get("bits_per_byte")
    if before is None or after is None:
        return "pretrained on the corpus; no text was held out to judge it by"
    return f"pretrained on the corpus: held-out text takes {after:.3f} bits a byte, {before:.3f} before"


@step(name="develop.pack_text", version=3, packages=("tokenizers", "numpy"))
def pack_text(
    cleaned: Corpus,
    dataset: Dataset,
    initial: Model | None,
    *,
    base_model: str,
    fingerprint: str,
    width: int,
    run: Run,
) -> Tokens:
    """The documents' text as packed rows: ``train`` to learn from, ``validation`` to judge by. What a mixture says is
    to be read several times is in ``train`` that often, in a further pass over the documents each time.
    """
    from tokenizers import Tokenizer

    from treadle.lm.bulk_encoder import BulkEncoder
    from treadle.lm.packed_documents import write_packed
    from treadle.lm.tokens import ids_kind, write_info

    folder = same_base(base_model, fingerprint, initial).path
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    size = {"train": 0, "validation": 0}
    again = 0

    def texts(side: str) -> Iterator[tuple[str, str]]:
        nonlocal again
        number, passes = 0, 1
        while number < passes:
            for document in chain.from_iterable(documents_on(side, cleaned, dataset)):
                times = repeats_of(document) if side == "train" else 1
                passes = max(passes, times)
                if number < times:
                    again += number > 0
                    size[side] += len(document.text.encode("utf-8", "surrogatepass"))
                    yield document.id, document.text
            number += 1

    encoder = BulkEncoder(Tokenizer.from_file(str(folder / "tokenizer.json")))
    kind, end = ids_kind(int(config["vocab_size"])), config.get("eos_token_id")
    with run.create(Tokens) as tokens:
        written = {
            side: write_packed(
                tokens.path,
                side,
                texts(side),
                encoder,
                width=width,
                ids=kind,
                end=end if isinstance(end, int) else None,
            )
            for side in size
        }
        if not written["train"].tokens:
            raise UserError("develop.pretrain: no document is left to learn from; all are held out for tests")
        repeated = {"repeated": again} if again else {}
        write_info(tokens.path, kind, written, {"base_model": base_model, "width": width, "bytes": size, **repeated})
        tokens.add_documents(cleaned.document_ids())
        run.summary(**{f"{side}_tokens": float(each.tokens) for side, each in written.items()})
        return tokens.commit()


@step(name="develop.pretrain", version=7, packages=("torch", "transformers"), tolerance=0.05, place=PLACE)
def pretrain(
    packed: Tokens,
    initial: Model | None,
    *,
    base_model: str,
    fingerprint: str,
    tokens: int,
    batch: int,
    learning_rate: float,
    schedule: Literal["linear", "cosine", "warmup-stable-decay", "constant"],
    warmup: float,
    seed: int,
    run: Run,
) -> Model:
    """Train the base model, or ``initial``, on bare text: the next token, hidden tokens or spans, as its family does.

    Killed, the same step goes on from its last checkpoint and ends in the same weights.
    """
    from treadle.lm.objective import objective_for
    from treadle.lm.pretraining import PretrainingSettings, check_apart
    from treadle.lm.pretraining import pretrain as train

    base = same_base(base_model, fingerprint, initial)
    family = json.loads((base.path / "config.json").read_text(encoding="utf-8"))["model_type"]
    settings = PretrainingSettings(
        tokens=tokens,
        objective=objective_for(family),
        batch=batch,
        learning_rate=learning_rate,
        schedule=schedule,
        warmup=warmup,
        seed=seed,
    )
    rows = packed.rows("train")
    check_apart(base.path, settings.objective, rows, packed.rows("validation"))
    before = _bits_per_byte(base.path, packed, settings.objective)
    told = (packed.digest, initial.digest if initial else fingerprint, repr(settings))
    with run.create(Model) as model, Carried(run, *told) as carry:
        result = carry(train, (base.path, model.path, rows), settings)
        seen = {packed.document("train", example) for row in result.rows for example in rows.examples(row)}
        model.add_documents(name for name in seen if name is not None)
        if initial is not None:
            model.add_documents(initial.document_ids())
        how = {"objective": settings.objective, "tokens": tokens, "learning_rate": learning_rate}
        write_about(model.path, base, "text", how)
        after = _bits_per_byte(model.path, packed, settings.objective)
        run.summary(
            **{name: value for name, value in (("bits_per_byte_before", before), ("bits_per_byte", after)) if value},
            loss_first=result.first_loss,
            loss=result.loss,
            steps=result.steps,
            tokens=result.tokens,
            tokens_per_second=result.tokens / result.seconds,
            resumed=result.resumed,
            spikes=len(result.spikes),
            rows_at_a_time=result.micro,
            checkpoint_seconds=result.checkpoint_seconds,
        )
        made = model.commit()
        carry.kept()
        return made


def _bits_per_byte(folder: Path, packed: Tokens, objective: Objective) -> float | None:
    """Of the held-out text; None where there is none. For hidden tokens and spans: bits a token that is asked for.

    The first token of a piece has nothing before it: it counts as a guess among the whole vocabulary.
    """
    from math import log, log2

    from treadle.lm.pretraining import held_out

    rows = packed.rows("validation")
    if not len(rows):
        return None
    found = held_out(folder, rows, objective)
    bits = sum(found.nats) / log(2)
    if objective != "causal":
        return bits / max(1, sum(found.learned))
    vocabulary = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    bits += len(found.nats) * log2(vocabulary)
    return bits / max(1, int(packed.read_json("tokens.json")["bytes"]["validation"]))
