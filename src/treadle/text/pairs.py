"""Examples of a source and a target: translations and summaries, from the column names people use.

The source is the user's message and the target the assistant's; a ``prefix`` ("translate English to French: ") is the
system's, so that what is measured against the source does not meet it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from treadle.core.errors import UserError
from treadle.text.accounting import Dropped
from treadle.text.dataset import Example
from treadle.text.document import Document
from treadle.text.examples import plain_fields
from treadle.text.row_mapping import SUMMARIES, TRANSLATIONS

MAX_CHARACTERS = 200_000
_RULES = {
    "no_pair": "there are not both a source and a target",
    "empty": "the source or the target has no text",
    "too_long": "more characters than the limit",
    "same": "source and target are the same text",
}


def translation(
    documents: Sequence[Document],
    *,
    languages: list[str] | None = None,
    prefix: str = "",
    max_characters: int = MAX_CHARACTERS,
) -> Iterator[Example | Dropped]:
    """One example a pair of texts, the second of which says what the first says in another language.

    A document has ``source`` and ``target`` (or ``src`` and ``tgt``, or what the source's ``fields`` call prompt and
    response), or the column ``translation`` with a text a language, or a column a language. ``languages``: from which
    to which, such as [fr, en], where the columns are named by language. ``prefix`` goes before each source.
    """
    if languages is not None and (len(languages) != 2 or languages[0] == languages[1]):
        raise UserError(f"examples (translation): languages is {languages}; expected from which to which: [fr, en]")
    names = TRANSLATIONS if languages is None else ((languages[0], languages[1]),)
    for document in documents:
        fields = document.fields
        by_language = fields.get("translation")
        if isinstance(by_language, dict):
            if languages is None and "messages" not in fields:
                known = ", ".join(sorted(map(str, by_language)))
                raise UserError(
                    f"examples (translation): {document.locator} has the languages {known}; say from which to which:"
                    " languages: [fr, en]"
                )
            fields = {**fields, **by_language}
        yield _made(document, _pair(document, fields, names), prefix, max_characters, differ=True)


def summary(
    documents: Sequence[Document], *, prefix: str = "", max_characters: int = MAX_CHARACTERS
) -> Iterator[Example | Dropped]:
    """One example a text with its summary.

    A document has ``document`` and ``summary``, ``article`` and ``highlights``, ``text`` and ``summary``, ``source``
    and ``target``, or what the source's ``fields`` call prompt and response. A source that is a list of sentences is
    one text; of a list of summaries the first counts. ``prefix`` goes before each source.
    """
    for document in documents:
        yield _made(document, _pair(document, document.fields, SUMMARIES), prefix, max_characters, differ=False)


_Pair = tuple[str, str, tuple[str, ...]]  # source, target, and the columns that they stand in


def _pair(document: Document, fields: dict[str, Any], names: Sequence[tuple[str, str]]) -> _Pair | None:
    """The columns of a pair; a source that the collecting took as the document's text is that text."""
    messages = fields.get("messages")
    if isinstance(messages, list):
        said = [(each.get("role"), each.get("content")) for each in messages if isinstance(each, dict)]
        if [role for role, _ in said] != ["user", "assistant"]:
            return None
        return str(said[0][1]), str(said[1][1]), ()
    for source, target in names:
        written = _text(fields.get(target), first=True)
        if written is not None:
            read = _text(fields.get(source), first=False)
            return (document.text if read is None else read), written, (source, target)
    return None


def _text(value: Any, *, first: bool) -> str | None:
    """A text, or a list of texts: the ``first`` of them, or all as one."""
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return value[0] if first else " ".join(value)
    return value if isinstance(value, str) else None


def _made(document: Document, pair: _Pair | None, prefix: str, limit: int, *, differ: bool) -> Example | Dropped:
    if pair is None:
        return Dropped(document, "no_pair", _RULES["no_pair"])
    source, target, used = pair
    rule = ""
    if not source.strip() or not target.strip():
        rule = "empty"
    elif len(source) + len(target) > limit:
        rule = "too_long"
    elif differ and source.strip() == target.strip():
        rule = "same"
    if rule:
        return Dropped(document, rule, _RULES[rule])
    messages = [{"role": "user", "content": source}, {"role": "assistant", "content": target}]
    if prefix:
        messages = [{"role": "system", "content": prefix}, *messages]
    fields = {name: value for name, value in plain_fields(document).items() if name not in used}
    return Example((document.id,), messages=tuple(messages), fields=fields)
