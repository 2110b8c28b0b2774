"""Reading what a teacher wrote: records of labeled lines, and nothing else.

    Question: What does `dumps` return?
    Answer: A text.
    Answers may go on in further lines.

A record has every label once, in order. Whatever does not begin with the first label, has a label without words or
lacks one is malformed, and so is the last record of a reply that was cut off.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST = 1 << 20  # characters of a reply that are looked at


@dataclass(frozen=True, slots=True)
class Malformed:
    """A piece of a reply that is no record: what it says, and why it is none."""

    text: str
    reason: str


def read_reply(text: str, labels: Sequence[str], *, cut: bool = False) -> list[tuple[str, ...] | Malformed]:
    """The records of a reply, each with a text for every label, and the pieces that are none, in order.

    ``cut``: the teacher had no room to end, so what it said last is not whole. There is always at least one piece.
    """
    cut = cut or len(text) > LONGEST
    text = text[:LONGEST].replace("\r\n", "\n").strip()
    if not text:
        return [Malformed("", "the reply is empty")]
    first = re.compile(rf"^{re.escape(labels[0])}:", re.MULTILINE)
    starts = [match.start() for match in first.finditer(text)]
    wrong = f"it does not begin with `{labels[0]}:`"
    if not starts:
        return [Malformed(text, wrong)]
    pieces: list[tuple[str, ...] | Malformed] = [Malformed(text[: starts[0]], wrong)] if starts[0] else []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        pieces.append(_record(text[start:end], labels))
    if cut:
        pieces[-1] = Malformed(text[starts[-1] :], "it was cut off at max_tokens")
    return pieces


def _record(text: str, labels: Sequence[str]) -> tuple[str, ...] | Malformed:
    values = []
    rest = text
    for label, following in zip(labels, [*labels[1:], ""], strict=True):
        rest = rest.removeprefix(f"{label}:")
        value = rest
        if following:
            found = re.search(rf"^{re.escape(following)}:", rest, re.MULTILINE)
            if found is None:
                return Malformed(text, f"a `{label}:` without `{following}:`")
            value, rest = rest[: found.start()], rest[found.start() :]
        if not value.strip():
            return Malformed(text, f"`{label}:` has no words")
        values.append(value.strip())
    if len(labels) > 1 and re.search(rf"^{re.escape(labels[-1])}:", values[-1], re.MULTILINE):
        return Malformed(text, f"more than one `{labels[-1]}:` for a `{labels[0]}:`")
    return tuple(values)
