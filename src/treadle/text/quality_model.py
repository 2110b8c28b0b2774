"""Is a text like the good examples or like the bad ones? Logistic regression over hashed words and pairs of words.

As GPT-3 chose web text (Brown et al. 2020, arXiv:2005.14165, appendix A): a linear classifier on hashed features that
tells a text's score. What is deemed good is the project's own examples, not a publisher's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.core.errors import Corrupt, UserError
from treadle.text.quality_features import BITS, BUCKETS, Features, features_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MODEL_FILE, WEIGHTS_FILE = "quality.json", "weights.npy"
_FORMAT = "treadle.quality/1"
_PENALTY = 0.1  # of the squared weights, divided by the number of texts
_ROUNDS = 300
_ENOUGH = 1e-5  # length of the gradient at which training ends
_LARGEST = 16 << 20  # bytes of a file of weights


@dataclass(frozen=True)
class QualityModel:
    """``weights`` (``BUCKETS``, float32) and ``bias``. A text scores
    1 / (1 + exp(-(bias + sum of the weights of its n features / sqrt(n)))).
    """

    weights: NDArray[np.float32]
    bias: float

    def scores(self, texts: Sequence[str]) -> list[float]:
        """How like the good examples each text is, between 0 and 1."""
        return [float(score) for chunk in features_of(texts) for score in _sigmoid(self._margins(chunk))]

    def save(self, folder: Path, info: dict[str, Any]) -> None:
        """``quality.json`` (with ``info``) and ``weights.npy`` in a folder."""
        import numpy as np

        np.save(folder / WEIGHTS_FILE, self.weights, allow_pickle=False)
        text = {"format": _FORMAT, "bits": BITS, "bias": self.bias, **info}
        (folder / MODEL_FILE).write_text(json.dumps(text, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> QualityModel:
        """What ``save`` wrote; ``Corrupt`` when it is something else."""
        import numpy as np

        try:
            info = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
            if info["format"] != _FORMAT or info["bits"] != BITS:
                raise Corrupt(f"{folder / MODEL_FILE} is no quality classifier of format {_FORMAT}")
            if (folder / WEIGHTS_FILE).stat().st_size > _LARGEST:
                raise Corrupt(f"{folder / WEIGHTS_FILE} has more than {_LARGEST:,} bytes")
            weights = np.load(folder / WEIGHTS_FILE, allow_pickle=False)
            bias = float(info["bias"])
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise Corrupt(f"{folder} holds no quality classifier: {error}") from None
        if weights.shape != (BUCKETS,) or weights.dtype != np.float32 or not np.isfinite(weights).all():
            raise Corrupt(f"{folder / WEIGHTS_FILE}: expected {BUCKETS:,} finite float32 weights")
        return cls(weights, bias)

    def _margins(self, features: Features) -> NDArray[np.float64]:
        import numpy as np

        counts = np.diff(features.starts)
        return self.bias + _row_sums(self.weights[features.buckets], counts) / np.sqrt(np.maximum(counts, 1))


def train(good: Sequence[str], bad: Sequence[str]) -> QualityModel:
    """The classifier that minimizes mean log loss plus a penalty on its weights, both sides weighing the same.

    By Nesterov's accelerated gradient with a fixed step, from zero: the same texts in the same order give the same
    weights. ``UserError`` when a side is empty.
    """
    import numpy as np

    if not good or not bad:
        raise UserError("prepare.quality: expected good and bad examples, one side has none")
    features = _together(features_of([*good, *bad]))
    counts = np.diff(features.starts)
    scale = 1 / np.sqrt(np.maximum(counts, 1))
    wanted = np.repeat([1.0, 0.0], [len(good), len(bad)])
    share = np.repeat([0.5 / len(good), 0.5 / len(bad)], [len(good), len(bad)])
    penalty = _PENALTY / len(wanted)
    step = 1 / (0.5 + penalty)  # rows have length one, with the bias the root of two: curvature is at most 2 / 4
    now = ahead = np.zeros(BUCKETS + 1)  # the bias is last
    for turn in range(1, _ROUNDS + 1):
        margins = ahead[-1] + _row_sums(ahead[features.buckets], counts) * scale
        error = share * (_sigmoid(margins) - wanted)
        slope = np.bincount(features.buckets, weights=np.repeat(error * scale, counts), minlength=BUCKETS)
        gradient = np.append(slope + penalty * ahead[:-1], error.sum())
        before, now = now, ahead - step * gradient
        if float(np.sqrt(np.sum(gradient * gradient))) < _ENOUGH:
            break
        ahead = now + (turn - 1) / (turn + 2) * (now - before)
    return QualityModel(now[:-1].astype(np.float32), float(now[-1]))


def _together(chunks: Iterator[Features]) -> Features:
    import numpy as np

    parts = list(chunks)
    counts = np.concatenate([np.diff(part.starts) for part in parts])
    return Features(np.concatenate([part.buckets for part in parts]), np.concatenate(([0], np.cumsum(counts))))


def _row_sums(values: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    import numpy as np

    owners = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(owners, weights=values, minlength=len(counts)).astype(np.float64)


def _sigmoid(margins: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    small = np.exp(-np.abs(margins))
    result: NDArray[np.float64] = np.where(margins >= 0, 1.0, small) / (1 + small)
    return result
