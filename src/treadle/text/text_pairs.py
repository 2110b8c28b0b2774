"""Examples for embedding: two texts that belong together, with wrong ones where the data has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from treadle.text.accounting import Dropped
from treadle.text.dataset import Example
from treadle.text.document import Document
from treadle.text.row_mapping import PAIRS

NEGATIVES = "negatives"  # the field of an example with texts that do not belong to the first

_WRONG = ("negative", "negatives", "hard_negatives", "rejected")
_SCORES = ("score", "label", "similarity_score")


def text_pairs(documents: Sequence[Document], *, least: float = 0.5) -> Iterator[Example | Dropped]:
    """One example a pair: columns such as ``anchor`` and ``positive``, or one question and one answer.

    ``negative`` or ``negatives`` beside them is told from them. Where pairs are scored (``score``, ``label``), those
    below ``least`` do not belong together.
    """
    for document in documents:
        pair = _pair(document)
        if pair is None:
            yield Dropped(document, "no_pair", "there are no two columns such as anchor and positive")
            continue
        anchor, positive = pair
        score = next((document.fields[name] for name in _SCORES if _is_number(document.fields.get(name))), None)
        if not anchor or not positive:
            yield Dropped(document, "empty_text", "one of the two texts is empty")
        elif score is not None and score < least:
            yield Dropped(document, "not_together", "the two texts are scored as not belonging together")
        else:
            fields = {NEGATIVES: wrong} if (wrong := _wrong(document)) else {}
            messages = ({"role": "user", "content": anchor}, {"role": "assistant", "content": positive})
            yield Example((document.id,), messages=messages, fields=fields)


def _pair(document: Document) -> tuple[str, str] | None:
    said = document.fields.get("messages")
    if isinstance(said, list):
        if [message["role"] for message in said] != ["user", "assistant"]:
            return None
        return str(said[0]["content"]).strip(), str(said[1]["content"]).strip()
    for names in PAIRS:
        if all(isinstance(document.fields.get(name), str) for name in names):
            first, second = (str(document.fields[name]).strip() for name in names)
            return first, second
    return None


def _wrong(document: Document) -> list[str]:
    found: list[str] = []
    for name in _WRONG:
        value = document.fields.get(name)
        found += [str(each).strip() for each in (value if isinstance(value, list) else [value]) if each]
    return [text for text in dict.fromkeys(found) if text]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
