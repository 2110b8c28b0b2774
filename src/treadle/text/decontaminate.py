"""Examples that give away a test: found, dropped by a named rule, counted.

The test set is the yardstick that versions are compared by, so it stays as it is and the others give way:
what test and another split share is dropped from the other, and what validation and training share is dropped
from training (and from what is kept back for it). Only answers and the last question count; a system prompt
is the same everywhere and gives nothing away.

Rules, in the order they are tried:

- ``same_answer``: the answer's words are those of a tested answer. Documentation inherited by several modules
  is this.
- ``near_answer``: the answers' sets of words overlap by ``SIMILAR`` or more (Jaccard), for answers of
  ``MIN_WORDS`` or more.
- ``shared_words``: 13 or more words in a row are shared (the length used for GPT-3's evaluation, Brown et al.
  2020, appendix C).
- ``holds_answer``: a tested answer shorter than that, of at least ``MIN_WORDS``, stands as a whole inside the
  text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from treadle.text.dataset import Example
from treadle.text.drops import DroppedExample
from treadle.text.questions import START
from treadle.text.words import run_hashes, word_numbers, words_of

RUN = 13
MIN_WORDS = 5
SIMILAR = 0.8
# Each split gives way to those before it.
ORDER = ("test", "validation", "holdout", "train")


@dataclass(frozen=True, slots=True)
class Decontaminated:
    """Splits with what gave a test away left out of them."""

    splits: dict[str, list[Example]]
    dropped: tuple[DroppedExample, ...]


def decontaminate(
    splits: Mapping[str, Sequence[Example]], *, run: int = RUN, similar: float = SIMILAR
) -> Decontaminated:
    """Drop from every split what it shares with test or validation (training may share with what is kept back
    for it).

    For classification the text plays the answer's part, since labels are shared by design; of questions about a text,
    text, question and answer together.
    """
    guarded: list[Example] = []
    clean: dict[str, list[Example]] = {}
    dropped: list[DroppedExample] = []
    for name in ORDER:
        examples = list(splits.get(name, ()))
        if guarded and examples:
            leaks = find_leaks(guarded, examples, run=run, similar=similar)
            for place, (rule, against) in leaks.items():
                reason = f"{name} gives away a tested answer: {_told(guarded[against])[:200]}"
                dropped.append(DroppedExample(examples[place], f"decontaminate.{rule}", reason))
            examples = [example for place, example in enumerate(examples) if place not in leaks]
        clean[name] = examples
        if name in ("test", "validation"):
            guarded.extend(examples)
    return Decontaminated({name: clean[name] for name in splits}, tuple(dropped))


def find_leaks(
    guarded: Sequence[Example], examples: Sequence[Example], *, run: int = RUN, similar: float = SIMILAR
) -> dict[int, tuple[str, int]]:
    """By place in ``examples``: the rule it breaks, and the place in ``guarded`` of what it gives away."""
    tested = [tuple(words_of(_told(example))) for example in guarded]
    taught = [tuple(words_of(_told(example))) for example in examples]
    leaks: dict[int, tuple[str, int]] = {}
    whole = {words: place for place, words in reversed(list(enumerate(tested))) if words}
    for place, words in enumerate(taught):
        if words in whole:
            leaks[place] = ("same_answer", whole[words])
    for place, against in _near(tested, taught, similar).items():
        leaks.setdefault(place, ("near_answer", against))
    for place, found in _runs(guarded, examples, tested, run).items():
        leaks.setdefault(place, found)
    return leaks


def _near(tested: Sequence[tuple[str, ...]], taught: Sequence[tuple[str, ...]], similar: float) -> dict[int, int]:
    """Pairs whose word sets overlap by ``similar``, found through prefixes of rare words (Chaudhuri et al.
    2006; exact).
    """
    frequency = Counter(word for words in (*tested, *taught) for word in set(words))

    def rare_first(words: tuple[str, ...]) -> list[str]:
        return sorted(set(words), key=lambda word: (frequency[word], word))

    def prefix(ordered: list[str]) -> list[str]:
        return ordered[: len(ordered) - math.ceil(similar * len(ordered) - 1e-9) + 1]

    index: dict[str, list[int]] = {}
    sets = [set(words) for words in tested]
    for place, words in enumerate(tested):
        if len(words) >= MIN_WORDS:
            for word in prefix(rare_first(words)):
                index.setdefault(word, []).append(place)
    found: dict[int, int] = {}
    for place, words in enumerate(taught):
        if len(words) < MIN_WORDS:
            continue
        ordered = rare_first(words)
        here = set(ordered)
        candidates = {other for word in prefix(ordered) for other in index.get(word, ())}
        for other in sorted(candidates):
            if len(here & sets[other]) >= similar * len(here | sets[other]) - 1e-9:
                found[place] = other
                break
    return found


def _runs(
    guarded: Sequence[Example], examples: Sequence[Example], tested: Sequence[tuple[str, ...]], run: int
) -> dict[int, tuple[str, int]]:
    """Shared runs of words: ``run`` of them from question or answer, or a whole shorter answer."""
    import numpy as np

    known: dict[str, int] = {}
    wanted: dict[int, dict[int, int]] = {}  # length of a run -> its hash -> place in guarded

    def want(words: Sequence[str], length: int, place: int) -> None:
        for number in run_hashes(word_numbers(words, known), length).tolist():
            wanted.setdefault(length, {}).setdefault(number, place)

    for place, (example, answer) in enumerate(zip(guarded, tested, strict=True)):
        for part in _parts(example):
            want(words_of(part), run, place)
        if MIN_WORDS <= len(answer) < run:
            want(answer, len(answer), place)
    # All parts in one line, so that each length is one pass over it; a run across two parts is none.
    parts = [(place, words_of(part)) for place, example in enumerate(examples) for part in _parts(example)]
    line = word_numbers([word for _, words in parts for word in words], known)
    part_of = np.repeat(np.arange(len(parts)), [len(words) for _, words in parts])
    found: dict[int, tuple[str, int]] = {}
    for length in sorted(wanted, reverse=True):
        hashes = run_hashes(line, length)
        inside = part_of[: len(hashes)] == part_of[length - 1 :][: len(hashes)]
        hits = np.isin(hashes, np.array(list(wanted[length]), dtype=np.uint64)) & inside
        for at in np.flatnonzero(hits).tolist():
            rule = "shared_words" if length >= run else "holds_answer"
            found.setdefault(parts[int(part_of[at])][0], (rule, wanted[length][int(hashes[at])]))
    return found


def _told(example: Example) -> str:
    if (
        START in example.fields
    ):  # short answers recur ("two", "Paris"): what is learned is where in which text they stand
        return " ".join(str(message["content"]) for message in example.messages)
    return example.answer if example.messages else example.text


def _parts(example: Example) -> Iterable[str]:
    if not example.messages:
        return (example.text,)
    asked = [message["content"] for message in example.messages if message["role"] == "user"]
    return (*asked[-1:], example.answer)
