"""A document: one text with where it came from, and an id that never changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from blake3 import blake3

Origin = Literal["human", "synthetic", "feedback", "traffic"]


def document_id(source: str, locator: str, raw: bytes) -> str:
    """``doc:<64 hex>``: BLAKE3 over source, locator and the raw bytes, each length-prefixed."""
    hasher = blake3()
    for part in (source.encode(), locator.encode("utf-8", "surrogatepass"), raw):
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return "doc:" + hasher.hexdigest()


@dataclass(frozen=True, slots=True)
class Document:
    """One text as collected. ``id`` is minted at collect and survives every later change of the text.

    ``time`` is the source's own (ISO 8601), never the time of fetching. ``subject`` is the keyed digest of
    the person the text is about, never the name. ``fields`` holds what the source said besides the text:
    ``label``, ``messages`` (OpenAI style), ``module``, ``signature`` or any other value that JSON can carry.
    """

    id: str
    source: str
    locator: str
    text: str
    license: str | None = None
    time: str | None = None
    origin: Origin = "human"
    parents: tuple[str, ...] = ()
    purpose: str | None = None
    subject: str | None = None
    retain_until: str | None = None
    opt_out: tuple[str, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)


def map_text(document: Document, change: Callable[[str], str], *, keys: bool = False) -> Document:
    """The document with ``change`` applied to its text and to every string in its fields, with ``keys`` also to the
    names of members; itself when nothing changed.
    """
    text = change(document.text)
    fields = _map_strings(document.fields, change, keys)
    if text == document.text and fields is document.fields:
        return document
    return replace(document, text=text, fields=fields)


def strings(document: Document) -> Iterator[str]:
    """Everything in a document that a person could read: text, locator, and what its fields hold, numbers
    included.
    """
    yield document.text
    yield document.locator
    waiting: list[Any] = [document.fields]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from (str(key) for key in value)
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield str(value)


def _map_strings(value: Any, change: Callable[[str], str], keys: bool) -> Any:
    """The value with its strings changed; the very same object when nothing changed."""
    if isinstance(value, str):
        changed = change(value)
        return value if changed == value else changed
    if isinstance(value, dict):
        items: dict[Any, Any] = {}
        for key, inner in value.items():
            name = change(key) if keys and isinstance(key, str) else key
            while name in items or (name != key and name in value):  # two people become one word
                name += "_"
            items[name] = _map_strings(inner, change, keys)
        same = all(items.get(key, items) is inner for key, inner in value.items())
        return value if same else items
    if isinstance(value, list | tuple):
        inner_values = [_map_strings(inner, change, keys) for inner in value]
        same = all(new is old for new, old in zip(inner_values, value, strict=True))
        return value if same else type(value)(inner_values)
    return value
