"""What people wrote to each other about something, as documents: an issue, a page, and the comments on it in order.

Whoever wrote a piece is its subject, as a keyed digest only. ``apart`` makes a document of every comment, so that an
erasure finds each writer; ``whole`` joins them to what they are about, whose writer is then the only subject.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from treadle.core.digest import canonical_json
from treadle.core.errors import UserError
from treadle.text.accounting import Dropped, Quarantined
from treadle.text.document import Document, document_id
from treadle.text.row_mapping import UnusableRowError, source_time
from treadle.text.rows import RowError, check_value

Comments = Literal["apart", "whole", "none"]
Piece = Document | Dropped | Quarantined
_DEEPEST = 16


class MalformedError(ValueError):
    """Why something the server gave is not what its documentation says, in words that do not quote it."""


@dataclass(frozen=True, slots=True)
class Post:
    """One text by one person. ``locator`` is its address; ``rule`` and ``reason`` say why it is left out."""

    locator: str
    text: str
    person: str | None
    time: str
    fields: dict[str, Any] = field(default_factory=dict)
    rule: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Threads:
    """Makes documents of posts. ``common`` is what all have in common (license, origin ...)."""

    source: str
    common: Mapping[str, Any]
    keyed: Callable[[str], str]

    def document(self, post: Post) -> Document | Dropped | Quarantined:
        """A post by itself."""
        return self._made(post, post.text, [])

    def whole(self, post: Post, comments: list[Post]) -> Document | Dropped | Quarantined:
        """A post with the comments below it, in their order."""
        text = "\n\n".join(part for part in (post.text, *(comment.text for comment in comments)) if part.strip())
        return self._made(post, text, comments)

    def broken(self, locator: str, error: MalformedError) -> Quarantined:
        """A piece that is not what it should be."""
        return Quarantined(f"{self.source}:{locator}", 0, str(error))

    def _made(self, post: Post, text: str, comments: list[Post]) -> Document | Dropped | Quarantined:
        raw = canonical_json([text, post.time])
        fields = {**post.fields, **({"comments": [self._told(one) for one in comments]} if comments else {})}
        subject = self.keyed(post.person.lower()) if post.person else None
        if subject is not None:
            fields["from"] = subject
        document = Document(
            id=document_id(self.source, post.locator, raw),
            source=self.source,
            locator=post.locator,
            text=text,
            time=post.time,
            subject=subject,
            fields=fields,
            **self.common,
        )
        if post.rule:
            return Dropped(document, f"{self.source}.{post.rule}", post.reason)
        if not text.strip():
            return Dropped(document, f"{self.source}.empty", "there is no text")
        return document

    def _told(self, comment: Post) -> dict[str, str]:
        told = {"time": comment.time}
        if comment.person:
            told["from"] = self.keyed(comment.person.lower())
        return told


def text_at(value: Any, *path: str, default: str | None = None) -> str:
    """The text at a path of keys; null, or none at all, is ``default``, and without one ``MalformedError``."""
    found = value
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    if found is None and default is not None:
        return default
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if not isinstance(found, str):
        raise MalformedError(f"{'.'.join(path)} is not a text")
    try:
        check_value(found, _DEEPEST)
    except RowError as error:
        raise MalformedError(f"{'.'.join(path)}: {error}") from None
    return found


def number_at(value: Any, key: str) -> int:
    """The number under a key."""
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, int) or isinstance(found, bool):
        raise MalformedError(f"{key} is no number")
    return found


def time_at(value: Any, *path: str) -> str:
    """The moment at a path of keys, in UTC."""
    try:
        return source_time(text_at(value, *path))
    except UnusableRowError:
        raise MalformedError(f"{'.'.join(path)} is no time") from None


def labels_at(value: Any, key: str) -> list[str]:
    """Names of labels, given as texts or as objects with a name."""
    found = value.get(key) if isinstance(value, dict) else None
    names = [one.get("name") if isinstance(one, dict) else one for one in found] if isinstance(found, list) else []
    return [name for name in names if isinstance(name, str)]


def each(found: Any, made: Callable[[Any], Post], threads: Threads, where: str) -> Iterator[Post | Quarantined]:
    """A post of each item of a page, or why there is none; ``UserError`` for what is no page."""
    if not isinstance(found, list):
        raise UserError(f"{threads.source}: {where} gave something other than a list; check url")
    for place, one in enumerate(found, start=1):
        try:
            yield made(one)
        except MalformedError as error:
            yield threads.broken(f"{where} item {place}", error)
