"""How an answer's words agree with the reference's. None of these knows what the words mean."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from treadle.evals.item import Item, Output
from treadle.text.questions import REFERENCES

_WORD = re.compile(r"[^\W_]+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def rouge_l(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """F measure of the longest common subsequence of words (Lin 2004).

    Equal to the package rouge-score without stemming wherever the text is ASCII; that package drops all other
    letters, here they are words.
    """
    return _each(items, outputs, rouge_l_f)


def token_f1(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """F measure of the bags of words, normalized as in SQuAD (Rajpurkar et al. 2016); the best of several
    references.
    """
    return _best(items, outputs, bag_f1)


def exact_match(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """1 where answer and reference are the same after SQuAD's normalization (case, punctuation, articles,
    spaces); of several references any.
    """
    return _best(items, outputs, lambda reference, answer: float(_normalized(reference) == _normalized(answer)))


def exact_text(items: Sequence[Item], outputs: Sequence[Output]) -> list[float]:
    """1 where answer and reference are the same, but for spaces at their ends."""
    return _each(items, outputs, lambda reference, answer: float(reference.strip() == answer.strip()))


def rouge_l_f(reference: str, answer: str) -> float:
    """ROUGE-L's F measure of two texts."""
    target, said = words(reference), words(answer)
    if not target or not said:
        return 0.0
    common = common_subsequence(target, said)
    return f_measure(common / len(said), common / len(target))


def words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case."""
    return _WORD.findall(text.lower())


def bag_f1(reference: str, answer: str) -> float:
    """F measure of two bags of normalized words; 1 when both are empty."""
    target, said = _normalized(reference).split(), _normalized(answer).split()
    if not target or not said:
        return float(target == said)
    common = sum((Counter(target) & Counter(said)).values())
    return f_measure(common / len(said), common / len(target))


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, 64 words and more at a step in the bits of a number (Hyyrö
    2004).
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    row = every
    for word in second:
        met = row & places.get(word, 0)
        row = ((row + met) | (row - met)) & every
    return len(first) - row.bit_count()


def f_measure(precision: float, recall: float) -> float:
    """The harmonic mean of the two; 0 where both are."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _normalized(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _each(items: Sequence[Item], outputs: Sequence[Output], function: Callable[[str, str], float]) -> list[float]:
    return [function(item.reference, output.text) for item, output in zip(items, outputs, strict=True)]


def _best(items: Sequence[Item], outputs: Sequence[Output], function: Callable[[str, str], float]) -> list[float]:
    return [
        max(function(str(reference), output.text) for reference in item.fields.get(REFERENCES) or [item.reference])
        for item, output in zip(items, outputs, strict=True)
    ]
