"""What readers give, and what they are told. Knows no document: ids, licenses and people's digests come later."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Text:
    """One text out of a file. ``part`` says which part of the file it is, as its locator goes on: ``!/chapter.xhtml``;
    ``raw`` its bytes then. ``person`` is the name or address of whom it is by, still in the clear.
    """

    text: str
    part: str = ""
    raw: bytes | None = None
    title: str | None = None
    time: str | None = None
    person: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A piece that is no text, or cannot be read. ``offset`` counts bytes from the start of the part."""

    reason: str
    offset: int = 0
    part: str = ""


class UnreadableError(ValueError):
    """Why a document cannot be read at all, in words that do not quote it."""


@dataclass(frozen=True, slots=True)
class Documents:
    """How documents are read, and what one may cost.

    ``boilerplate`` keeps navigation, headers and footers of HTML; ``quoted`` keeps what a mail quotes of others;
    ``attachments`` of mails are listed by name, or read as well. ``seconds`` (of a processor), ``memory`` (MiB) and
    ``largest`` (bytes) hold for each document; ``workers`` is the number of processes, by default one a processor, at
    most four.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (what pydantic looks for)

    boilerplate: bool = False
    quoted: bool = True
    attachments: Literal["list", "read"] = "list"
    seconds: int = 30
    memory: int = 1024
    largest: int = 100_000_000
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "memory", "largest", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")


_HALF = re.compile("[\ud800-\udfff]")
Piece = Text | Unreadable
Reader = Callable[[bytes, Documents], Iterator[Piece]]


def to_json(piece: Piece) -> dict[str, Any]:
    """As a worker sends it."""
    value = asdict(piece)
    if isinstance(piece, Text):
        for name in ("text", "title"):  # half of a surrogate pair is no text, and nobody could store it
            if value[name] is not None:
                value[name] = _HALF.sub("\ufffd", value[name])
        if piece.raw is not None:
            value["raw"] = base64.b64encode(piece.raw).decode("ascii")
    return value


def from_json(value: dict[str, Any]) -> Piece:
    """What ``to_json`` made; ``TypeError`` or ``ValueError`` for anything else."""
    if "reason" in value:
        return Unreadable(str(value["reason"]), int(value["offset"]), str(value["part"]))
    raw = value.pop("raw")
    return Text(**value, raw=None if raw is None else base64.b64decode(raw))
