"""How probable a model finds the reference answers. All in natural logarithms, over the answer's tokens and
the one that ends it.

Perplexities of models with different tokenizers cannot be compared; bits per byte can.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.core.errors import UserError
from treadle.evals.item import Item, Output
from treadle.evals.metric import Need, Rows, ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray


_MOST = 700.0  # nats a word: the exponential of more is no number of 64 bits, as of a text that is one long word


class LogLikelihood:
    """Mean log-likelihood per reference token, in nats."""

    name = "log_likelihood"
    higher_is_better = True
    needs: Need = "likelihood"

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """(nats, tokens) per item."""
        return [(_nats(item, output), output.reference_tokens) for item, output in zip(items, outputs, strict=True)]

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """Nats over tokens."""
        return ratio(totals)


class Perplexity(LogLikelihood):
    """``exp`` of the mean negative log-likelihood per reference token."""

    name = "perplexity"
    higher_is_better = False

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """exp(-nats / tokens)."""
        import numpy as np

        return np.asarray(np.exp(-ratio(totals)))


class BitsPerByte(LogLikelihood):
    """Negative log-likelihood of the references in bits per byte of their UTF-8 text."""

    name = "bits_per_byte"
    higher_is_better = False

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """(bits, bytes) per item."""
        return [
            (-_nats(item, output) / math.log(2), len(item.reference.encode("utf-8", "surrogatepass")))
            for item, output in zip(items, outputs, strict=True)
        ]


class WordPerplexity(LogLikelihood):
    """``exp`` of the negative log-likelihood per word; words are what spaces part, as lm-evaluation-harness counts."""

    name = "word_perplexity"
    higher_is_better = False

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """(nats, words) per item."""
        return [
            (_nats(item, output), len(re.split(r"\s+", item.reference)))
            for item, output in zip(items, outputs, strict=True)
        ]

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """exp(-nats / words)."""
        import numpy as np

        return np.asarray(np.exp(np.minimum(-ratio(totals), _MOST)))


class BytePerplexity(WordPerplexity):
    """``exp`` of the negative log-likelihood per byte of UTF-8."""

    name = "byte_perplexity"

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """(nats, bytes) per item."""
        return [
            (_nats(item, output), len(item.reference.encode("utf-8", "surrogatepass")))
            for item, output in zip(items, outputs, strict=True)
        ]


def _nats(item: Item, output: Output) -> float:
    if output.log_likelihood is None or output.reference_tokens < 1:
        raise UserError(f"item {item.id}: the reference was not scored; run the engine's score first")
    return output.log_likelihood
