"""How well vectors find what belongs together: each item's reference among the references of all items.

An output holds the ten nearest references with their cosines, the nearest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.core.errors import MissingExtra
from treadle.evals.item import Item, Output

if TYPE_CHECKING:
    from treadle.core.runs import Run
    from treadle.evals.metric import Metric
    from treadle.evals.results import Evaluation
    from treadle.text.dataset import Example

SHOWN = 10


def rank_all(
    model: Path, examples: Sequence[Example], metrics: Sequence[Metric], run: Run, **_asked: Any
) -> Evaluation:
    """Embed the examples' questions and references with the model in a folder, and rank."""
    import numpy as np

    from treadle.evals.report import evaluation_engine
    from treadle.evals.results import Evaluation
    from treadle.evals.runner import items_from

    items = items_from(examples)
    pool = sorted({item.reference for item in items})
    texts = [example.question for example in examples] + pool
    with evaluation_engine(model, "transformers", run.scratch) as opened:
        rows = np.asarray(opened.embed(texts, lambda done, total: run.progress(done, total, "texts")))
    outputs = nearest(rows[: len(items)] @ rows[len(items) :].T, pool)
    return Evaluation("model", tuple(items), tuple(outputs))


def tfidf_ranking(train: Sequence[Example], items: Sequence[Item], *, seed: int) -> list[Output]:
    """Cosines of weighed words, as scikit-learn has them by default; weights are learned from the training texts."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise MissingExtra("scikit-learn", extra="train") from None
    pool = sorted({item.reference for item in items})
    words = TfidfVectorizer(sublinear_tf=True).fit([text for each in train for text in (each.question, each.answer)])
    asked = ["\n".join(message["content"] for message in item.messages if message["role"] == "user") for item in items]
    return nearest((words.transform(asked) @ words.transform(pool).T).toarray(), pool)


def nearest(cosines: Any, pool: Sequence[str]) -> list[Output]:
    """From cosines of shape (items, pool): the nearest of each; of equally near ones the first by name."""
    import numpy as np

    order = np.argsort(-np.asarray(cosines), axis=1, kind="stable")[:, :SHOWN]
    return [
        Output(text=pool[best[0]], probabilities={pool[place]: float(cosines[row][place]) for place in best})
        for row, best in enumerate(order.tolist())
    ]


def recall_at_1(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """Share of items whose reference is the nearest."""
    return [float(rank == 1) for rank in _ranks(items, outputs)]


def recall_at_10(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """Share of items whose reference is among the ten nearest."""
    return [float(rank > 0) for rank in _ranks(items, outputs)]


def mrr(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """Mean of one over the reference's place, 0 beyond the tenth (MRR@10 of MS MARCO)."""
    return [1 / rank if rank else 0.0 for rank in _ranks(items, outputs)]


for _metric in (recall_at_1, recall_at_10, mrr):
    _metric.needs = "ranking"  # type: ignore[attr-defined]


def _ranks(items: Sequence[Item], outputs: Sequence[Output]) -> list[int]:
    """The reference's place, from 1; 0 where it is not among the nearest."""
    found = []
    for item, output in zip(items, outputs, strict=True):
        places = list(output.probabilities)
        found.append(places.index(item.reference) + 1 if item.reference in places else 0)
    return found
