"""Examples of texts with marked spans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from treadle.core.errors import UserError
from treadle.text.accounting import Dropped
from treadle.text.dataset import Example
from treadle.text.document import Document
from treadle.text.examples import plain_fields
from treadle.text.spans import BadSpansError, Span, from_list, from_tags, label_of, read_label

_TAGS = ("ner_tags", "tags", "labels")
_SPANS = ("spans", "entities")


def tagging(documents: Sequence[Document], *, names: tuple[str, ...] = ()) -> Iterator[Example | Dropped]:
    """One example a text: ``tokens`` with ``ner_tags`` (texts, or numbers that count ``names``), or a text with
    ``spans`` or ``entities``, each with start, end and type in characters.
    """
    for document in documents:
        try:
            text, spans = _marked(document, names)
        except BadSpansError as error:
            yield Dropped(document, error.rule, error.reason)
            continue
        if text.strip():
            yield Example((document.id,), text=text, label=label_of(spans), fields=plain_fields(document))
        else:
            yield Dropped(document, "no_text", "the text is empty")


def _marked(document: Document, names: Sequence[str]) -> tuple[str, list[Span]]:
    tokens, label = document.fields.get("tokens"), document.fields.get("label")
    tags = _first(document, _TAGS)
    if isinstance(tokens, list) and isinstance(tags, list):
        return from_tags(tokens, tags, names)
    found = _first(document, _SPANS)
    if found is None and isinstance(label, str):  # as a person corrects an answer
        try:
            found = [list(span) for span in read_label(label)]
        except UserError:
            raise BadSpansError("bad_span", "the label is no list of spans") from None
    if found is None:
        raise BadSpansError("no_spans", "there are neither tokens with tags nor spans")
    return document.text, from_list(document.text, found)


def _first(document: Document, names: Sequence[str]) -> Any:
    return next((document.fields[name] for name in names if document.fields.get(name) is not None), None)
