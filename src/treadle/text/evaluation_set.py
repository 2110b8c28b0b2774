"""Evaluation sets from outside, and what of them stands in one's own examples.

A set is what any source reads: conversations count by the question asked last and by their answer, other documents by
their text. What is compared are texts of ``MIN_WORDS`` words or more; a shorter answer (``42``, ``yes``) gives nothing
away by itself. Rules, in the order they are tried:

- ``same_text``: the words of a question, an answer or a text are those of one in the set.
- ``near_text``: their sets of words overlap by ``SIMILAR`` or more (Jaccard).
- ``shared_words``: ``RUN`` words in a row are shared.
- ``holds_text``: one of the set, shorter than that, stands as a whole inside.

The rule of a drop has the set's name before it: ``decontaminate.gsm8k.shared_words``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from treadle.text.accounting import Quarantined
from treadle.text.dataset import SPLITS, Example
from treadle.text.decontaminate import MIN_WORDS, RUN, SIMILAR, find_leaks
from treadle.text.document import Document
from treadle.text.drops import DroppedExample
from treadle.text.personal_data import excerpt
from treadle.text.words import words_of

PREFIX = "decontaminate."
_RULES = {
    "same_answer": "same_text",
    "near_answer": "near_text",
    "shared_words": "shared_words",
    "holds_answer": "holds_text",
}
_TOLD = {
    "same_text": "has the same words as",
    "near_text": "has nearly the same words as",
    "shared_words": f"shares {RUN} words in a row with",
    "holds_text": "holds all of",
}
_QUOTED = 60  # characters


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Texts that nobody must learn from, with the name of the item that each belongs to. What is ``unread`` cannot be
    looked for.
    """

    name: str
    texts: tuple[str, ...]
    items: tuple[str, ...]
    unread: tuple[Quarantined, ...] = ()

    def __len__(self) -> int:
        """How many items it has."""
        return len(set(self.items))


@dataclass(frozen=True, slots=True)
class KeptApart:
    """Splits without what the sets have, what was dropped, and how much of each set was met."""

    splits: dict[str, list[Example]]
    dropped: tuple[DroppedExample, ...]
    met: dict[str, int]


def set_of_documents(name: str, documents: Iterable[Document]) -> EvaluationSet:
    """From what a source gave."""
    return _set(name, ((document.locator, text) for document in documents for text in _asked_and_told(document)))


def set_of_examples(name: str, examples: Iterable[Example]) -> EvaluationSet:
    """From the examples of a split."""
    return _set(name, ((example.id, text) for example in examples for text in _last(example.messages, example.text)))


def keep_apart(splits: Mapping[str, Sequence[Example]], sets: Sequence[EvaluationSet]) -> KeptApart:
    """Drop from every split but the test what gives an item of a set away; the first set that does names the rule.

    The test stays as it is: nobody learns from it.
    """
    places = [(name, place) for name in SPLITS if name != "test" for place in range(len(splits.get(name, ())))]
    examples = [splits[name][place] for name, place in places]
    gone: dict[int, DroppedExample] = {}
    met: dict[str, int] = {}
    for each in sets:
        found = leaks(each, examples)
        met[each.name] = len({each.items[against] for _, against in found.values()})
        for place, (rule, against) in found.items():
            reason = (
                f'{places[place][0]} {_TOLD[rule]} an item of {each.name}: "{excerpt(each.texts[against], _QUOTED)}"'
            )
            gone.setdefault(place, DroppedExample(examples[place], f"{PREFIX}{each.name}.{rule}", reason))
    left: dict[str, list[Example]] = {name: [] for name in splits} | {"test": list(splits.get("test", ()))}
    for place, (name, _) in enumerate(places):
        if place not in gone:
            left[name].append(examples[place])
    return KeptApart(left, tuple(gone[place] for place in sorted(gone)), met)


def told(accounting: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What an account (as JSON) says of each set: ``items`` it has, how many were ``met`` in the examples,
    ``dropped`` documents by rule, and pieces of it that were ``quarantined``."""
    notes, gone, unread = accounting.get("notes") or {}, accounting["dropped"], accounting.get("unread") or {}
    names = [note.removeprefix(PREFIX).removesuffix(".items") for note in notes if note.endswith(".items")]
    return {
        name: {
            "items": notes[f"{PREFIX}{name}.items"],
            "met": notes[f"{PREFIX}{name}.met"],
            "dropped": {rule: gone[found] for rule in _TOLD if (found := f"{PREFIX}{name}.{rule}") in gone},
            "quarantined": unread.get(name, []),
        }
        for name in names
    }


def leaks(tests: EvaluationSet, examples: Sequence[Example]) -> dict[int, tuple[str, int]]:
    """By place in ``examples``: the rule that it breaks, and the place in the set's texts of what it gives away."""
    guarded = [Example(("item",), text=text) for text in tests.texts]
    parts = [(place, text) for place, example in enumerate(examples) for text in _all_said(example)]
    found = find_leaks(guarded, [Example(("part",), text=text) for _, text in parts], run=RUN, similar=SIMILAR)
    order = list(_RULES)
    result: dict[int, tuple[str, int]] = {}
    for _, place, rule, against in sorted(
        (order.index(rule), parts[part][0], rule, against) for part, (rule, against) in found.items()
    ):
        result.setdefault(place, (_RULES[rule], against))
    return dict(sorted(result.items()))


def _set(name: str, texts: Iterable[tuple[str, str]]) -> EvaluationSet:
    kept = [(item, text) for item, text in texts if len(words_of(text)) >= MIN_WORDS]
    return EvaluationSet(name, tuple(text for _, text in kept), tuple(item for item, _ in kept))


def _asked_and_told(document: Document) -> Iterator[str]:
    yield from _last(document.fields.get("messages") or (), document.text)


def _last(messages: Sequence[Mapping[str, str]], text: str) -> Iterator[str]:
    if not messages:
        yield text
    for role in ("user", "assistant"):
        said = [message["content"] for message in messages if message["role"] == role]
        yield from said[-1:]


def _all_said(example: Example) -> Iterator[str]:
    if not example.messages:
        yield example.text
    yield from (message["content"] for message in example.messages if message["role"] != "system")
