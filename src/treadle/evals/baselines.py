"""What a model has to beat: three worked examples in the prompt, the most frequent label, words counted and
weighed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from treadle.core.digest import blake3_bytes
from treadle.core.errors import MissingExtra, UserError
from treadle.evals.item import Item, Output
from treadle.text.dataset import Example
from treadle.text.tfidf import fitted

WORKED_EXAMPLES = 3


def worked_examples(train: Sequence[Example], *, seed: int, count: int = WORKED_EXAMPLES) -> list[Example]:
    """``count`` training examples to show in the prompt, chosen by digest, each of another group and of
    middling length.

    The longest and shortest quarter are passed over: an odd one out makes the baseline too easy to beat.
    """
    chat = [example for example in train if example.answer and example.messages]
    if len(chat) < count:
        raise UserError(f"few_shot: {count} worked examples were asked for, training has {len(chat)} conversations")
    lengths = sorted(len(example.answer) for example in chat)
    low, high = lengths[len(lengths) // 4], lengths[len(lengths) * 3 // 4]
    drawn = sorted(chat, key=lambda example: blake3_bytes(f"{seed}\0worked\0{example.id}".encode()))
    fair = [example for example in drawn if low <= len(example.answer) <= high]
    chosen: list[Example] = []
    for example in [*fair, *drawn]:
        if len(chosen) < count and example.group not in {one.group for one in chosen}:
            chosen.append(example)
    return (chosen + [example for example in drawn if example not in chosen])[:count]


def majority(train: Sequence[Example], items: Sequence[Item], *, seed: int = 0) -> list[Output]:
    """The most frequent training label for every item, with the labels' frequencies as probabilities."""
    counts = Counter(example.label for example in train if example.label)
    if not counts:
        raise UserError("majority: training has no labels")
    total = sum(counts.values())
    shares = {str(label): count / total for label, count in sorted(counts.items(), key=lambda pair: str(pair[0]))}
    best = min(shares, key=lambda label: (-shares[label], label))
    return [Output(text=best, probabilities=shares) for _ in items]


def tfidf(train: Sequence[Example], items: Sequence[Item], *, seed: int) -> list[Output]:
    """Logistic regression on TF-IDF of words and word pairs, as scikit-learn has them by default."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise MissingExtra("scikit-learn", extra="train") from None
    labeled = [example for example in train if example.label is not None]
    if len({example.label for example in labeled}) < 2:
        raise UserError("tfidf: training needs at least two labels")
    vectorizer, features = fitted([example.text for example in labeled])
    model = LogisticRegression(C=10.0, max_iter=1_000, random_state=seed)
    model.fit(features, [example.label for example in labeled])
    labels = [str(label) for label in model.classes_]
    outputs = []
    for row in model.predict_proba(vectorizer.transform([item.text for item in items])).tolist():
        probabilities = dict(zip(labels, row, strict=True))
        best = min(probabilities, key=lambda label: (-probabilities[label], label))
        outputs.append(Output(text=best, probabilities=probabilities))
    return outputs
