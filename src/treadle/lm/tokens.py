"""Tokens: the examples of each split as token ids, with which of them are to be learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from treadle.core.artifacts import Artifact
from treadle.core.digest import canonical_json
from treadle.core.errors import MissingExtra
from treadle.lm.packing import TokenizedExample

FORMAT = 1


class Tokens(Artifact):
    """``<split>.npz`` with ``ids``, ``answer`` (a value a token), ``ends`` (a value an example); ``tokens.json``."""

    kind: ClassVar[str] = "tokens"

    def examples(self, split: str) -> list[TokenizedExample]:
        """The examples of a split in the dataset's order."""
        import numpy as np

        with np.load(self.path(f"{split}.npz"), allow_pickle=False) as arrays:
            ids, answer, ends = (arrays[name].tolist() for name in ("ids", "answer", "ends"))
        starts = [0, *ends][: len(ends)]
        return [
            TokenizedExample(ids[start:end], [bool(flag) for flag in answer[start:end]])
            for start, end in zip(starts, ends, strict=True)
        ]

    def lengths(self, split: str) -> list[int]:
        """Tokens of each example."""
        return [len(example.ids) for example in self.examples(split)]


def write_tokens(folder: Path, splits: Mapping[str, Sequence[TokenizedExample]], info: Mapping[str, object]) -> None:
    """Write every split. The bytes depend on the examples alone."""
    try:
        import numpy as np
    except ModuleNotFoundError:
        raise MissingExtra("numpy", extra="data") from None
    counts = {}
    for name, examples in splits.items():
        ends = np.cumsum([len(example.ids) for example in examples], dtype=np.int64)
        ids = np.array([token for example in examples for token in example.ids], dtype=np.int32)
        answer = np.array([flag for example in examples for flag in example.answer], dtype=np.int8)
        np.savez(folder / f"{name}.npz", ids=ids, answer=answer, ends=ends)
        counts[name] = {"examples": len(examples), "tokens": len(ids), "answer_tokens": int(answer.sum())}
    (folder / "tokens.json").write_bytes(canonical_json({"format": FORMAT, "splits": counts, **info}))
