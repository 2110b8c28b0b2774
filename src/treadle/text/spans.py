"""Spans of characters with a type, as the label of a text; and how people write them down.

A label is canonical JSON, ``[[start, end, "TYPE"], ...]``, in order of the text; no two overlap.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from treadle.core.digest import canonical_json
from treadle.core.errors import UserError

Span = tuple[int, int, str]

_STARTS = ("start", "start_position", "start_offset", "begin")
_ENDS = ("end", "end_position", "end_offset")
_TYPES = ("type", "label", "entity", "entity_type", "entity_group", "tag")
_TEXTS = ("text", "value", "word", "entity_value")
_PREFIXES = frozenset("BIESLU")


class BadSpansError(ValueError):
    """Why spans cannot be used: the name of a rule, and in words that do not quote the text."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule
        self.reason = reason


def label_of(spans: Iterable[Span]) -> str:
    """The label that says these spans."""
    return canonical_json([list(span) for span in sorted(spans)]).decode()


def read_label(label: str) -> list[Span]:
    """The spans of a label; ``UserError`` when it is none."""
    try:
        return [(int(start), int(end), str(kind)) for start, end, kind in json.loads(label)]
    except (ValueError, TypeError):
        raise UserError('a label is no list of spans; expected JSON, such as [[0, 5, "PERSON"]]') from None


def from_tags(tokens: Sequence[Any], tags: Sequence[Any], names: Sequence[str] = ()) -> tuple[str, list[Span]]:
    """The text of tokens, a space between any two, and the spans of its tags (IOB1, IOB2, BILOU, BIOES, or bare types);
    numbers are looked up in ``names``. ``BadSpansError`` for tags that do not fit.
    """
    if len(tokens) != len(tags):
        raise BadSpansError("tags_do_not_fit", f"{len(tokens)} tokens and {len(tags)} tags")
    if not all(isinstance(token, str) for token in tokens):
        raise BadSpansError("bad_tokens", "a token is not a text")
    spans: list[Span] = []
    at, last, open_ = 0, "", False
    for token, tag in zip(tokens, (_tag(tag, names) for tag in tags), strict=True):
        start, end = at, at + len(token)
        at = end + 1
        prefix, dash, kind = tag.partition("-")
        if not (dash and prefix in _PREFIXES):
            prefix, kind = "I", tag
        if tag == "O" or not token.strip():
            last, open_ = "", False
        elif open_ and last == kind and prefix in "IEL":
            spans[-1] = (spans[-1][0], end, kind)
            open_ = prefix == "I"
        else:
            spans.append((start, end, kind))
            last, open_ = kind, prefix in "BI"
    return " ".join(tokens), spans


def from_list(text: str, found: Any) -> list[Span]:
    """The spans of a column: mappings with start, end and type under their usual names, or lists of the three.

    ``BadSpansError`` where one lies outside the text, says another text than stands there, or overlaps another.
    """
    if not isinstance(found, list):
        raise BadSpansError("bad_span", "spans are not a list")
    spans = sorted(_span(text, each) for each in found)
    for before, after in pairwise(spans):
        if after[0] < before[1]:
            raise BadSpansError("overlapping_spans", f"the spans at {before[0]} and {after[0]} overlap")
    return spans


def _span(text: str, found: Any) -> Span:
    said = None
    if isinstance(found, Mapping):
        start, end, kind = (next((found[n] for n in names if n in found), None) for names in (_STARTS, _ENDS, _TYPES))
        said = next((found[name] for name in _TEXTS if name in found), None)
    elif isinstance(found, list | tuple) and len(found) == 3:
        start, end, kind = found
    else:
        raise BadSpansError("bad_span", "a span is neither a mapping nor start, end and type")
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in (start, end))
    if not whole or not isinstance(kind, str) or not kind.strip() or kind == "O":
        raise BadSpansError("bad_span", "a span has no whole numbers as start and end, or no type")
    assert isinstance(start, int)
    assert isinstance(end, int)
    if not 0 <= start < end <= len(text) or not text[start:end].strip():
        raise BadSpansError("outside_text", f"a span from {start} to {end} in {len(text)} characters")
    if isinstance(said, str) and said != text[start:end]:
        raise BadSpansError("other_text", f"another text stands at {start} than the span says")
    return start, end, kind.strip()


def _tag(tag: Any, names: Sequence[str]) -> str:
    if isinstance(tag, int) and not isinstance(tag, bool):
        if not 0 <= tag < len(names):
            raise BadSpansError("unknown_tag", f"tag {tag} has no name; say them with names: [O, B-..., I-...]")
        return names[tag]
    if not isinstance(tag, str) or not tag.strip():
        raise BadSpansError("unknown_tag", "a tag is neither a text nor a number")
    return tag.strip()
