"""From good and bad documents to a classifier, and what it is worth on those that it did not learn from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from treadle.core.errors import UserError
from treadle.text.deduplicate import key_of
from treadle.text.document import Document
from treadle.text.quality_model import QualityModel, train

FEWEST = 20  # documents of a side
MOST = 20_000  # documents of a side that are learned from or judged by
_HELD_OUT = 5  # one in so many
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Worth:
    """On ``good`` and ``bad`` held-out documents: how many are told rightly at 0.5, and how often a good one scores
    above a bad one.
    """

    good: int
    bad: int
    accuracy: Share
    auc: Share

    def to_json(self) -> dict[str, Any]:
        """All fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Trained:
    """``documents`` are the ids of all that were learned from or judged by."""

    model: QualityModel
    worth: Worth
    learned: int
    on_both_sides: int
    documents: tuple[str, ...]


def train_on(good: Iterable[Document], bad: Iterable[Document]) -> Trained:
    """Each text counts once. One that is on both sides says nothing and is left out; of more than ``MOST`` a side
    those stay whose texts hash lowest. Every fifth, by the same hash, is held out: who is held out depends on the
    texts alone. ``UserError`` with fewer than ``FEWEST`` texts on a side.
    """
    sides = [_by_text(good), _by_text(bad)]
    both = sides[0].keys() & sides[1].keys()
    learn: list[list[Document]] = []
    judge: list[list[Document]] = []
    for name, side in zip(("good", "bad"), sides, strict=True):
        chosen = [side[key] for key in sorted(side.keys() - both)[:MOST]]
        if len(chosen) < FEWEST:
            told = f", {len(both):,} more are on both sides" if both else ""
            raise UserError(
                f"prepare.quality.{name}: {len(chosen)} different documents{told}; expected at least {FEWEST}"
            )
        judge.append(chosen[::_HELD_OUT])
        learn.append([document for place, document in enumerate(chosen) if place % _HELD_OUT])
    model = train(*([document.text for document in side] for side in learn))
    scores = [model.scores([document.text for document in side]) for side in judge]
    used = tuple(document.id for side in (*learn, *judge) for document in side)
    return Trained(model, worth_of(*scores), sum(map(len, learn)), len(both), used)


def worth_of(good: Sequence[float], bad: Sequence[float]) -> Worth:
    """What scores of good and bad documents say. Intervals: Wilson 1927 for the accuracy; Newcombe 2006 (Statistics
    in Medicine 25, method 5, from Hanley and McNeil 1982) for the area under the curve. Neither is empty at 1.
    """
    right = sum(score >= 0.5 for score in good) + sum(score < 0.5 for score in bad)
    area = _area(good, bad)
    low, high = (_area_bound(area, len(good), len(bad), upper=side) for side in (False, True))
    return Worth(len(good), len(bad), _wilson(right, len(good) + len(bad)), Share(area, low, high))


def _by_text(documents: Iterable[Document]) -> dict[bytes, Document]:
    found: dict[bytes, Document] = {}
    for document in documents:
        found.setdefault(key_of(document), document)
    return found


def _area(good: Sequence[float], bad: Sequence[float]) -> float:
    """The share of pairs in which the good one scores higher; ties are a half."""
    import numpy as np

    ordered = np.sort(np.asarray(bad))
    below = np.searchsorted(ordered, good, side="left") + np.searchsorted(ordered, good, side="right")
    return float(below.sum() / (2 * len(good) * len(bad)))


def _wilson(right: int, n: int) -> Share:
    share, more = right / n, _Z * _Z / n
    middle = (share + more / 2) / (1 + more)
    width = _Z * math.sqrt(share * (1 - share) / n + more / (4 * n)) / (1 + more)
    return Share(share, max(0.0, middle - width), min(1.0, middle + width))


def _area_bound(area: float, good: int, bad: int, *, upper: bool) -> float:
    """Where the observed area lies ``_Z`` standard errors from what is supposed, by bisection."""
    near, far = area, 1.0 if upper else 0.0
    spare = (good + bad) / 2 - 1
    for _ in range(60):
        supposed = (near + far) / 2
        spread = 1 + spare * (1 - supposed) / (2 - supposed) + spare * supposed / (1 + supposed)
        error = math.sqrt(supposed * (1 - supposed) * spread / (good * bad))
        if abs(area - supposed) <= _Z * error:
            near = supposed
        else:
            far = supposed
    return near
