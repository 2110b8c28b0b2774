"""Questions about a text, whose answer stands in it (extractive, as SQuAD has them)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.core.errors import MissingExtra
from treadle.evals.item import Item, Output
from treadle.evals.task import Task
from treadle.lm.fitting import Carry, FitSettings, Fitted
from treadle.text.dataset import Example
from treadle.text.questions import START

if TYPE_CHECKING:
    from treadle.core.runs import Run
    from treadle.evals.metric import Metric
    from treadle.evals.results import Evaluation

_WORDS = r"\w+|[^\s\w]"
_SENTENCE = re.compile(r".+?(?:[.!?]+[\"')\]]*(?=\s|$)|[。!?]|\n|$)", re.DOTALL)


def fit(base: Path, out: Path, examples: Sequence[Example], settings: FitSettings, carry: Carry) -> Fitted:
    """An encoder that scores each piece as the answer's beginning and end (``lm.reading``)."""
    from treadle.lm.reading import train_reader

    found: Fitted = carry(train_reader, (base, out, *_placed(examples)), settings.at(_placed))
    return found


fit.adapts = True  # type: ignore[attr-defined]  # it follows settings.method
fit.judged_by = ("accuracy",)  # type: ignore[attr-defined]


def _placed(examples: Sequence[Example]) -> tuple[list[str], list[str], list[tuple[int, int] | None]]:
    """Questions, texts, and where the answers stand."""
    asked = [_asked(example.messages) for example in examples]
    places = [
        None
        if example.fields.get(START) is None
        else (start := int(example.fields[START]), start + len(example.answer))
        for example in examples
    ]
    return [question for question, _ in asked], [text for _, text in asked], places


def read_all(model: Path, examples: Sequence[Example], metrics: Sequence[Metric], run: Run, **asked: Any) -> Evaluation:
    """Put the examples' questions to the model in a folder, each with its text."""
    from treadle.evals.report import evaluation_engine
    from treadle.evals.results import Evaluation
    from treadle.evals.runner import items_from

    items = items_from(examples)
    pairs = [_asked(item.messages) for item in items]
    with evaluation_engine(model, "transformers", run.scratch) as opened:
        found = opened.extract(pairs, lambda done, total: run.progress(done, total, "items"))
    outputs = [Output(text=text[each.start : each.end]) for (_, text), each in zip(pairs, found, strict=True)]
    return Evaluation("model", tuple(items), tuple(outputs))


def first_sentence(train: Sequence[Example], items: Sequence[Item], *, seed: int) -> list[Output]:
    """The text's first sentence."""
    return [Output(text=sentences(_asked(item.messages)[1])[0]) for item in items]


def similar_sentence(train: Sequence[Example], items: Sequence[Item], *, seed: int) -> list[Output]:
    """The sentence of the text that is most like the question, by the cosine of TF-IDF of words."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise MissingExtra("scikit-learn", extra="train") from None
    pairs = [_asked(item.messages) for item in items]
    split = [sentences(text) for _, text in pairs]
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=_WORDS)
    vectorizer.fit([sentence for each in split for sentence in each])
    outputs = []
    for (question, _), each in zip(pairs, split, strict=True):
        alike = (vectorizer.transform(each) @ vectorizer.transform([question]).T).toarray()[:, 0]
        outputs.append(Output(text=each[int(alike.argmax())]))
    return outputs


def sentences(text: str) -> list[str]:
    """The sentences of a text; at least one, which may be empty."""
    return [found for each in _SENTENCE.findall(text) if (found := each.strip())] or [text.strip()]


def _asked(messages: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Question and text of an example's or an item's messages."""
    said = {message["role"]: str(message["content"]) for message in messages}
    return said["user"], said["system"]


TASK = Task(
    name="qa",
    maker="questions",
    metrics=("exact_match", "token_f1"),
    answer=read_all,
    fit=fit,
    lora_learning_rate=1e-3,
    simple={"similar_sentence": similar_sentence, "first_sentence": first_sentence},
    baselines=("similar_sentence", "first_sentence"),
    architectures=("bert",),
    heads=("ForQuestionAnswering",),
    asking="extract",
)
