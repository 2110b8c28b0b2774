"""The filter by a project's own classifier: every document is scored, and dropped below the threshold."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from treadle.text.accounting import Dropped
from treadle.text.document import Document
from treadle.text.quality_model import QualityModel
from treadle.text.transform import Piece

RULE, FIELD = "quality.score", "quality"
_SOURCE = "the project's own classifier, as in GPT-3 (Brown et al. 2020, A)"
_DIGITS = 4


@dataclass(frozen=True)
class Quality:
    """A transform that holds the folder of a classifier. The score, to four digits, stays in the field ``quality``."""

    folder: Path
    threshold: float
    name: str = "quality"
    ordered: bool = False

    def start(self) -> Callable[[Sequence[Document]], Iterable[Piece]]:
        """Ready to be called with batches; ``Corrupt`` when the folder holds something else."""
        return functools.partial(_judged, _loaded(self.folder), self.threshold)


@functools.lru_cache(maxsize=2)
def _loaded(folder: Path) -> QualityModel:
    return QualityModel.load(folder)  # once a process, not once a shard


def _judged(model: QualityModel, threshold: float, documents: Sequence[Document]) -> Iterator[Piece]:
    scores = model.scores([document.text for document in documents])
    for document, exact in zip(documents, scores, strict=True):
        score = round(exact, _DIGITS)
        scored = replace(document, fields={**document.fields, FIELD: score})
        if score < threshold:
            yield Dropped(scored, RULE, f"scores {score:.{_DIGITS}f}, less than {threshold:.4g} ({_SOURCE})")
        else:
            yield scored
