"""What translating and summarizing share: a source in, a target out, by an encoder-decoder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from treadle.core.errors import UserError
from treadle.evals.item import Item, Output
from treadle.lm.fitting import Carry, FitSettings, Fitted
from treadle.text.dataset import Example

HEADS = ("ForConditionalGeneration", "MTModel")
# Where a sentence ends: behind its mark, and closing quotes or brackets, before a space; the marks of Chinese and
# Japanese need none.
_SENTENCE_END = re.compile(r"(?<=[.!?\u2026])[\"'\u201d\u2019)\]]*\s+|(?<=[\u3002\uff01\uff1f])\s*")
_NO_END = re.compile(r"(?:\b(?:e\.g|i\.e|cf|vs|et al|Fig|Eq|Dr|Mr|Mrs|Ms|Prof|St|No)|\b[A-Z])\.$")


def fit(base: Path, out: Path, examples: Sequence[Example], settings: FitSettings, carry: Carry) -> Fitted:
    """An encoder-decoder on sources and targets (``lm.sequence_to_sequence``). What the system's message says is the
    prefix of the source. There may be one; it goes for examples without it too, such as users' corrections."""
    from treadle.lm.sequence_to_sequence import train_sequences

    prefixes = {_said(example.messages, "system") for example in examples} - {""}
    if len(prefixes) > 1:
        raise UserError(f"training: {len(prefixes)} prefixes before the sources; expected the same in all examples")
    prefix = next(iter(prefixes), "")
    found: Fitted = carry(train_sequences, (base, out, *_translated(examples), prefix), settings.at(_translated))
    return found


fit.adapts = True  # type: ignore[attr-defined]  # it follows settings.method
fit.judged_by = ()  # type: ignore[attr-defined]


def _translated(examples: Sequence[Example]) -> tuple[list[str], list[str]]:
    return [_said(example.messages, "user") for example in examples], [example.answer for example in examples]


def copy(train: Sequence[Example], items: Sequence[Item], *, seed: int = 0) -> list[Output]:
    """The source itself as the answer."""
    return [Output(text=_said(item.messages, "user")) for item in items]


def lead(count: int) -> Callable[..., list[Output]]:
    """A baseline: the first ``count`` sentences of the source."""

    def first(train: Sequence[Example], items: Sequence[Item], *, seed: int = 0) -> list[Output]:
        return [Output(text=" ".join(sentences(_said(item.messages, "user"))[:count])) for item in items]

    return first


def sentences(text: str) -> list[str]:
    """The sentences of a text, by their marks; what follows an abbreviation or an initial belongs to its sentence."""
    found: list[str] = []
    start = 0
    for end in _SENTENCE_END.finditer(text):
        sentence = text[start : end.end()].strip()
        if sentence and not _NO_END.search(sentence):
            found.append(sentence)
            start = end.end()
    rest = text[start:].strip()
    return [*found, rest] if rest else found


def _said(messages: Sequence[dict[str, str]], role: str) -> str:
    return "\n".join(message["content"] for message in messages if message["role"] == role)
