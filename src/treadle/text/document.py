"""A document: one text with where it came from, and an id that never changes."""

from __future__ import annotations

from dataclasses import dataclass, field
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

    ``time`` is the source's own (ISO 8601), never the time of fetching. ``subject`` is the keyed digest of the person
    the text is about, never the name. ``fields`` holds what the source said besides the text: ``label``,
    ``messages`` (OpenAI style), ``module``, ``signature`` or any other value that JSON can carry.
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
