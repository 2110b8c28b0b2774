"""Texts to probabilities for the engines that run a classifier as a graph: batched by length, without torch.

Like ``classification.Classifier``, with numpy: the same tokens, the same padding, the same order of labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from treadle.core.errors import UserError
from treadle.lm.engine_wire import Generate, Tokens
from treadle.lm.model_folder import read_config

Run = Callable[[dict[str, Any]], Any]
"""From named int64 arrays of shape (texts, tokens) to logits of shape (texts, labels)."""


class BatchedClassifier:
    """``run`` computes logits of a padded batch of at most ``batch_size`` texts."""

    def __init__(self, folder: Path, run: Run, *, inputs: Sequence[str], batch_size: int, max_length: int) -> None:
        """``UserError`` when the folder names no labels, or lacks its tokenizer."""
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise UserError(f"{folder}: no tokenizer.json; expected a model folder as save_pretrained writes it")
        labels = read_config(folder).get("id2label")
        if not isinstance(labels, dict) or not labels:
            raise UserError(f"{folder / 'config.json'}: names no labels (id2label); expected a classifier's")
        self.labels: tuple[str, ...] = tuple(str(labels[key]) for key in sorted(labels, key=int))
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.encode_special_tokens = True  # a text that spells [SEP] is still one text
        known = map(self._tokenizer.token_to_id, ("[PAD]", "<pad>"))
        self._padding = next((token for token in known if token is not None), 0)
        self._run = run
        self._inputs = tuple(inputs)
        self._batch_size = batch_size

    def predict(self, texts: Sequence[str]) -> list[list[float]]:
        """Probabilities, one row a text, summing to 1, in the order given."""
        import numpy as np

        found: list[list[float]] = [[] for _ in texts]
        for places, given in self.batches(texts):
            logits = np.asarray(self._run(given), dtype=np.float64)
            powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
            for place, row in zip(places, (powers / powers.sum(axis=-1, keepdims=True)).tolist(), strict=True):
                found[place] = row
        return found

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """What is computed together: the places of texts, those of like length, and the arrays."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        for start in range(0, len(order), self._batch_size):
            places = order[start : start + self._batch_size]
            yield places, self._batch([rows[place] for place in places])

    def _batch(self, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
        import numpy as np

        width = max(1, *map(len, rows))
        ids = np.full((len(rows), width), self._padding, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row
            mask[place, : max(1, len(row))] = 1  # where all is masked, the answer would depend on what it stands beside
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return {name: given[name] for name in self._inputs}


class ClassifierBackend:
    """The worker's side of an engine that labels and does nothing else; ``cannot`` says so."""

    cannot: str
    _classifier: BatchedClassifier

    def add(self, request: Generate) -> None:
        """Refused."""
        raise UserError(self.cannot)

    def cancel(self, number: int) -> None:
        """Nothing to cancel."""

    def pending(self) -> tuple[int, int]:
        """As ``Backend.pending``."""
        return 0, 0

    def step(self) -> list[Tokens]:
        """Nothing to go on with."""
        return []

    def score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        """Refused."""
        raise UserError(self.cannot)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Refused."""
        raise UserError(self.cannot)

    def classify(self, texts: Sequence[str]) -> tuple[list[str], list[list[float]]]:
        """As ``Backend.classify``."""
        return list(self._classifier.labels), self._classifier.predict(texts)
