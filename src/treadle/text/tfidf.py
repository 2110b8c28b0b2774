"""Words counted and weighed: the features of classical baselines, as scikit-learn makes them and reads them again.

A folder of plain files, none of them a pickle:

    <split>.npz      a sparse matrix (CSR, float64), a row an example, for ``scipy.sparse.load_npz``
    <split>.json     of each row its example, and its label or null
    vocabulary.json  the word or run of words of each column
    idf.npy          its weight: ln((1 + n) / (1 + documents with it)) + 1, as scikit-learn has it
    features.json    format, kind, settings, shape

The vocabulary and its weights are those of training; the other splits are counted by them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from treadle.core.digest import canonical_json
from treadle.core.errors import MissingExtra, UserError
from treadle.text.dataset import SPLITS, Example

FORMAT = 1
FEATURES_FILE = "features.json"
VOCABULARY = 200_000  # words and runs of words, at most
WORDS = 2  # in the longest run


def fitted(texts: Sequence[str], *, words: int = WORDS, vocabulary: int = VOCABULARY) -> tuple[Any, Any]:
    """A ``TfidfVectorizer`` that knows these texts, and their matrix: runs of up to ``words`` words, the most frequent
    ``vocabulary`` of them, ``1 + ln(count)`` weighed by how rare they are, each row of length 1.

    ``UserError`` when there is no word in them, ``MissingExtra`` without scikit-learn.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise MissingExtra("scikit-learn", extra="train") from None
    vectorizer = TfidfVectorizer(ngram_range=(1, words), sublinear_tf=True, max_features=vocabulary)
    try:
        return vectorizer, vectorizer.fit_transform(texts)
    except ValueError as error:
        raise UserError(f"tfidf: the training texts hold no words to count: {error}") from None


def write_features(
    folder: Path, examples: Callable[[str], Sequence[Example]], *, words: int, vocabulary: int
) -> dict[str, int]:
    """Write the files for every split of ``examples``; returns rows in all, and columns."""
    import numpy as np
    from scipy import sparse

    training = examples("train")
    vectorizer, matrix = fitted([each.question for each in training], words=words, vocabulary=vocabulary)
    names = vectorizer.get_feature_names_out().tolist()
    counts = {}
    for split in SPLITS:
        given = training if split == "train" else examples(split)
        if split != "train":
            texts = [each.question for each in given]
            matrix = vectorizer.transform(texts) if texts else sparse.csr_matrix((0, len(names)))
        sparse.save_npz(folder / f"{split}.npz", matrix)
        rows = {"examples": [each.id for each in given], "labels": [each.label for each in given]}
        (folder / f"{split}.json").write_bytes(canonical_json(rows))
        counts[split] = len(given)
    np.save(folder / "idf.npy", vectorizer.idf_, allow_pickle=False)
    (folder / "vocabulary.json").write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
    about = {"format": FORMAT, "kind": "tfidf", "words": words, "rows": counts, "columns": len(names)}
    (folder / FEATURES_FILE).write_bytes(canonical_json(about))
    return {"rows": sum(counts.values()), "columns": len(names)}
