"""How well spans are found: whole ones (strict, as in CoNLL and SemEval) and word by word.

References and outputs are labels as ``text.spans`` has them; whole spans also as a tag a word: ``B-PER I-PER O``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.evals.item import Item, Output
from treadle.evals.metric import Need, Rows, ratio
from treadle.lm.word_tags import tags_of, words
from treadle.text.spans import Span, read_label

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SpanF1:
    """F measure of the spans found: one counts where start, end and type are those of the reference (entity level;
    strict, as seqeval has it).
    """

    name = "span_f1"
    higher_is_better = True
    needs: Need = "answer"

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """Per item three counts of spans: right, found, true."""
        rows = []
        for item, output in zip(items, outputs, strict=True):
            true, found = _spans(item.reference), _spans(output.text)
            rows.append((float(len(true & found)), float(len(found)), float(len(true))))
        return rows

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """2 right / (found + true); 0 where there are none."""
        import numpy as np

        right, met = totals[..., 0], totals[..., 1] + totals[..., 2]
        return np.asarray(np.divide(2 * right, met, out=np.zeros_like(met), where=met > 0))


class TokenAccuracy:
    """Share of words whose tag (IOB2) is right. Most words are in no span, so it is high for who finds nothing."""

    name = "token_accuracy"
    higher_is_better = True
    needs: Need = "answer"

    def score(self, items: Sequence[Item], outputs: Sequence[Output]) -> Rows:
        """Per item (right words, words)."""
        rows = []
        for item, output in zip(items, outputs, strict=True):
            places = words(item.text)
            true, found = tags_of(places, read_label(item.reference)), tags_of(places, read_label(output.text))
            rows.append((float(sum(a == b for a, b in zip(true, found, strict=True))), float(len(places))))
        return rows

    def reduce(self, totals: NDArray[Any]) -> NDArray[Any]:
        """Right words over words; not a number for a text without any."""
        return ratio(totals)


def _spans(label: str) -> set[Span]:
    """The spans of a label, or of tags, by the words' places; an ``I`` that continues nothing opens nothing."""
    if label.lstrip().startswith("["):
        return set(read_label(label))
    found: list[Span] = []
    going = ""
    for place, tag in enumerate(label.split()):
        prefix, _, kind = tag.partition("-")
        if prefix == "I" and kind == going:
            found[-1] = (found[-1][0], place + 1, kind)
        else:
            going = kind if prefix == "B" else ""
            found += [(place, place + 1, kind)] if going else []
    return set(found)
