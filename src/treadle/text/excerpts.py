"""The part of a text around what triggered a rule, masked, with the trigger's place in it."""

from __future__ import annotations

from typing import NamedTuple

_MARGIN = 96  # characters beyond what is shown; longer than any finding, so none is cut in two unseen
_MOST_PASSES = 10

Span = tuple[int, int]  # characters, half open


class Excerpt(NamedTuple):
    """What may be shown of a text, and where in it the trigger is (None: nowhere, or it was not given)."""

    text: str
    mark: Span | None


def excerpt_around(text: str, span: Span, length: int) -> Excerpt:
    """At most about ``length`` masked characters of ``text`` around ``span``, the mark moved along.

    The mark covers whole replacements: half of ``[EMAIL]`` is never marked. A long trigger is cut at its end.
    """
    start, end = max(0, span[0]), min(len(text), span[1])
    end = max(start, min(end, start + length * 3 // 4))
    first = max(0, start - (length - (end - start)) // 3)
    last = min(len(text), first + max(length, end - first))
    low, high = max(0, first - _MARGIN), min(len(text), last + _MARGIN)
    before, after = "…" if first > 0 else "", "…" if last < len(text) else ""
    window, (first, start, end, last) = _masked(text[low:high], [first - low, start - low, end - low, last - low])
    shift = len(before) - first
    return Excerpt(before + window[first:last] + after, (start + shift, end + shift) if end > start else None)


def _masked(text: str, places: list[int]) -> tuple[str, list[int]]:
    """The text with findings replaced by their kinds, and ``places`` moved; odd ones to the end of a replacement."""
    from treadle.text.personal_data import scanner

    for _ in range(_MOST_PASSES):
        findings = scanner().find(text)
        if not findings:
            break
        parts, position, written = [], 0, 0
        moved = list(places)
        for finding in findings:
            kept, name = text[position : finding.start], f"[{finding.kind.upper()}]"
            for number, place in enumerate(places):
                if position <= place <= finding.start:
                    moved[number] = written + place - position
                elif finding.start < place < finding.end:
                    moved[number] = written + len(kept) + (len(name) if number >= len(places) // 2 else 0)
            parts += [kept, name]
            written += len(kept) + len(name)
            position = finding.end
        for number, place in enumerate(places):
            if place >= position:
                moved[number] = written + place - position
        text, places = "".join([*parts, text[position:]]), moved
    return text, places
