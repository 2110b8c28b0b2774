"""Spans of a text with their type: people, places, products, whatever the examples mark."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.core.errors import UserError
from treadle.evals.item import Item, Output
from treadle.evals.task import Task
from treadle.lm.fitting import Carry, FitSettings, Fitted
from treadle.lm.word_tags import OUTSIDE, Span, spans_of, tags_of, words
from treadle.text.dataset import Example
from treadle.text.spans import label_of, read_label

if TYPE_CHECKING:
    from treadle.core.runs import Run
    from treadle.evals.metric import Metric
    from treadle.evals.results import Evaluation


def fit(base: Path, out: Path, examples: Sequence[Example], settings: FitSettings, carry: Carry) -> Fitted:
    """An encoder with a head over the types that occur (``lm.tagging``)."""
    from treadle.lm.tagging import train_tagger

    found: Fitted = carry(train_tagger, (base, out, *_marked(examples)), settings.at(_marked))
    return found


fit.adapts = True  # type: ignore[attr-defined]  # it follows settings.method
fit.judged_by = ("accuracy", "f1")  # type: ignore[attr-defined]


def _marked(examples: Sequence[Example]) -> tuple[list[str], list[list[Span]]]:
    return [example.text for example in examples], [read_label(example.label or "[]") for example in examples]


def tag_all(model: Path, examples: Sequence[Example], metrics: Sequence[Metric], run: Run, **asked: Any) -> Evaluation:
    """Find the spans of the examples' texts with the model in a folder."""
    from treadle.evals.report import evaluation_engine
    from treadle.evals.results import Evaluation
    from treadle.evals.runner import items_from

    items = items_from(examples)
    with evaluation_engine(model, "transformers", run.scratch) as opened:
        found = opened.tag([item.text for item in items], lambda done, total: run.progress(done, total, "items"))
    outputs = [Output(text=label_of((s.start, s.end, s.type) for s in spans)) for spans in found]
    return Evaluation("model", tuple(items), tuple(outputs))


def dictionary(train: Sequence[Example], items: Sequence[Item], *, seed: int) -> list[Output]:
    """Each word's most frequent tag in training; a word that is not there is in no span."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for example in train:
        places = words(example.text)
        for (start, end), tag in zip(places, tags_of(places, read_label(example.label or "[]")), strict=True):
            counts[example.text[start:end]][tag] += 1
    if not counts:
        raise UserError("dictionary: training has no words")
    usual = {word: min(tags, key=lambda tag: (-tags[tag], tag)) for word, tags in counts.items()}
    outputs = []
    for item in items:
        places = words(item.text)
        tags = [usual.get(item.text[start:end], OUTSIDE) for start, end in places]
        outputs.append(Output(text=label_of(spans_of(places, tags))))
    return outputs


TASK = Task(
    name="tag",
    maker="tagging",
    metrics=("span_f1", "token_accuracy"),
    answer=tag_all,
    fit=fit,
    lora_learning_rate=1e-3,
    simple={"dictionary": dictionary},
    baselines=("dictionary",),
    architectures=("bert",),
    heads=("ForTokenClassification",),
    asking="tag",
    labeled=True,
)
