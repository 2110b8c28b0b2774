"""Vectors in which texts that belong together are close: search, deduplication, clustering."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.evals.ranking import rank_all, tfidf_ranking
from treadle.evals.task import BASE, Task
from treadle.lm.fitting import Carry, FitSettings, Fitted
from treadle.text.dataset import Example
from treadle.text.text_pairs import NEGATIVES

if TYPE_CHECKING:
    from treadle.lm.embedding_training import Pair


def fit(base: Path, out: Path, examples: Sequence[Example], settings: FitSettings, carry: Carry) -> Fitted:
    """An encoder that tells each pair from the others of its batch (``lm.embedding_training``)."""
    from treadle.lm.embedding_training import train_embedder

    found: Fitted = carry(train_embedder, (base, out, _pairs(examples)), settings.at(_pairs))
    return found


fit.adapts = True  # type: ignore[attr-defined]  # it follows settings.method
fit.judged_by = ()  # type: ignore[attr-defined]
fit.whole = True  # type: ignore[attr-defined]  # every process encodes by all of the model


def _pairs(examples: Sequence[Example]) -> list[Pair]:
    from treadle.lm.embedding_training import Pair

    return [Pair(each.question, each.answer, tuple(each.fields.get(NEGATIVES, ()))) for each in examples]


TASK = Task(
    name="embed",
    maker="text_pairs",
    metrics=("recall_at_1", "recall_at_10", "mrr"),
    answer=rank_all,
    fit=fit,
    lora_learning_rate=1e-3,
    gives=frozenset({"ranking"}),
    simple={"tfidf": tfidf_ranking},
    baselines=(BASE, "tfidf"),
    architectures=("bert",),
    heads=("Model",),
    asking="embed",
)
