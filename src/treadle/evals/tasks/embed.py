"""Vectors in which texts that belong together are close: search, deduplication, clustering."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from treadle.evals.ranking import rank_all, tfidf_ranking
from treadle.evals.task import BASE, Task
from treadle.lm.fitting import FitSettings, Fitted, OnStep
from treadle.text.dataset import Example
from treadle.text.text_pairs import NEGATIVES


def fit(base: Path, out: Path, examples: Sequence[Example], settings: FitSettings, on_step: OnStep) -> Fitted:
    """An encoder that tells each pair from the others of its batch (``lm.embedding_training``)."""
    from treadle.lm.embedding_training import Pair, train_embedder

    pairs = [Pair(each.question, each.answer, tuple(each.fields.get(NEGATIVES, ()))) for each in examples]
    return train_embedder(base, out, pairs, settings, on_step)


TASK = Task(
    name="embed",
    maker="text_pairs",
    metrics=("recall_at_1", "recall_at_10", "mrr"),
    answer=rank_all,
    fit=fit,
    gives=frozenset({"ranking"}),
    simple={"tfidf": tfidf_ranking},
    baselines=(BASE, "tfidf"),
    architectures=("bert",),
    heads=("Model",),
    asking="embed",
)
