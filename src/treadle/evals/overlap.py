"""How much of a reference's n-grams an answer has: BLEU and chrF for translations, ROUGE-N for summaries.

BLEU and chrF are scores of a whole set, from counts that are summed first; sacrebleu counts, and what is made of the
sums here is what sacrebleu makes of them. Their ``signature`` says how it was counted, so that two numbers can be
compared (Post 2018, "A Call for Clarity in Reporting BLEU Scores").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.core.errors import MissingExtra
from treadle.evals.answers import f_measure, words
from treadle.evals.item import Item, Output
from treadle.evals.metric import Need, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLEU_ORDERS = 4
_CHRF_ORDERS = 6
_CHRF_BETA = 2  # recall counts this many times as much (Popović 2016)


class _BySacrebleu:
    """A metric whose counts for each item are sacrebleu's own."""

    higher_is_better = True
    needs: Need = "answer"

    def __init__(self, counter: Any) -> None:
        self._counter = counter

    @property
    def signature(self) -> str:
        """How it was counted, as sacrebleu writes it."""
        self._counter.corpus_score(["a"], [["a"]])  # it knows the number of references only when it has scored
        return str(self._counter.get_signature())

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """A row of counts for each item."""
        references = [[item.reference for item in items]]
        found: Rows = self._counter._extract_corpus_statistics([output.text for output in outputs], references)
        return found


class Bleu(_BySacrebleu):
    """BLEU from 0 to 100 (Papineni et al. 2002), tokenized as WMT does ("13a"), smoothed as by NIST.

    A set in which no answer has four words is scored by the lengths that there are; so is a single answer.
    """

    name = "bleu"

    def __init__(self) -> None:
        super().__init__(_sacrebleu().BLEU(force=True))

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """Geometric mean of the precisions, times the penalty for being shorter than the reference."""
        import numpy as np

        said, wanted = totals[..., 0], totals[..., 1]  # words
        right, every = totals[..., 2 : 2 + _BLEU_ORDERS], totals[..., 2 + _BLEU_ORDERS :]
        there = every > 0
        missed = there & (right == 0)
        halvings = 2.0 ** np.cumsum(missed, axis=-1)  # each order without a match counts half of the one before
        with np.errstate(divide="ignore", invalid="ignore"):
            precision = np.where(missed, 1 / (halvings * every), right / every)
            logs = np.where(there, np.log(precision), 0.0).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)
            penalty = np.where(said < wanted, np.exp(1 - wanted / said), 1.0)
        return np.asarray(np.where(right.sum(axis=-1) > 0, 100 * penalty * np.exp(logs), 0.0))


class ChrF(_BySacrebleu):
    """chrF2 from 0 to 100: F measure of runs of 1 to 6 characters (Popović 2015), which needs no words."""

    name = "chrf"

    def __init__(self) -> None:
        super().__init__(_sacrebleu().CHRF())

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """The F measure of mean precision and mean recall over the lengths that both have."""
        import numpy as np

        # Runs of each length: how many the answer has, the reference has, and both have.
        said, wanted, both = np.moveaxis(totals.reshape(*totals.shape[:-1], _CHRF_ORDERS, 3), -1, 0)
        there = (said > 0) & (wanted > 0)
        orders = np.maximum(there.sum(axis=-1), 1)
        precision = np.divide(both, said, out=np.zeros_like(both), where=there).sum(axis=-1) / orders
        recall = np.divide(both, wanted, out=np.zeros_like(both), where=there).sum(axis=-1) / orders
        factor = _CHRF_BETA**2
        below = factor * precision + recall
        score = 100 * (1 + factor) * precision * recall
        return np.asarray(np.divide(score, below, out=np.zeros_like(below), where=below > 0))


def rouge_1(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """F measure of the words (Lin 2004), which are those of ``rouge_l``."""
    return [_rouge_n(item.reference, output.text, 1) for item, output in zip(items, outputs, strict=True)]


def rouge_2(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """F measure of the pairs of neighboring words (Lin 2004)."""
    return [_rouge_n(item.reference, output.text, 2) for item, output in zip(items, outputs, strict=True)]


def _rouge_n(reference: str, answer: str, n: int) -> float:
    target, said = _runs(words(reference), n), _runs(words(answer), n)
    common = (target & said).total()
    return f_measure(common / said.total(), common / target.total()) if common else 0.0


def _runs(found: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(found[start:] for start in range(n)), strict=False))


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError:
        raise MissingExtra("sacrebleu", extra="metrics") from None
    return metrics
