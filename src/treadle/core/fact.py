"""A fact, the row it becomes in the ledger, and the query tables that are drawn from rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from json.encoder import encode_basestring  # what json itself writes a text with, when it may write all of Unicode
from typing import Any

from treadle.core.database import Cursor
from treadle.core.digest import canonical_json


@dataclass(frozen=True, slots=True)
class Fact:
    """Something to be appended: a kind, its version, and a body of ids, digests, numbers, times and names."""

    kind: str
    body: dict[str, Any]
    version: int = 1


@dataclass(frozen=True, slots=True)
class Row:
    """A fact in its place. ``seq`` counts from 1; ``time`` is UTC in ISO 8601."""

    seq: int
    kind: str
    version: int
    time: str
    body: dict[str, Any]

    def canonical(self) -> bytes:
        """The bytes that are hashed."""
        return canonical_row(self.seq, self.kind, self.version, self.time, canonical_json(self.body).decode())


@dataclass(frozen=True)
class Projection:
    """A query table: its DDL, and how each row of the named kinds changes it; ``several`` may say how many rows, in
    their order, do so at less cost."""

    table: str
    ddl: str
    kinds: frozenset[str]
    apply: Callable[[Cursor, Row], None] = field(compare=False)
    several: Callable[[Cursor, Sequence[Row]], None] | None = field(default=None, compare=False)

    def apply_all(self, cursor: Cursor, rows: Sequence[Row]) -> None:
        """Rows of its kinds, in their order."""
        if self.several is not None:
            self.several(cursor, rows)
        else:
            for row in rows:
                self.apply(cursor, row)


def canonical_row(seq: int, kind: str, version: int, time: str, body: str) -> bytes:
    """A row in canonical JSON, from its body in canonical JSON; the same bytes as ``canonical_json`` of the whole."""
    text = (
        f'{{"body":{body},"kind":{encode_basestring(kind)},"seq":{seq},'
        f'"time":{encode_basestring(time)},"version":{version}}}'
    )
    return text.encode("utf-8", "surrogateescape")  # the bytes that a damaged row really has


def canonical_rows(rows: Sequence[tuple[Any, ...]]) -> list[bytes]:
    """The same of many rows of the table; ``TypeError`` where a kind or a time is no text."""
    quoted = {kind: encode_basestring(kind) for kind in {row[1] for row in rows}}
    times = "".join([row[3] for row in rows])
    if encode_basestring(times) != f'"{times}"':
        return [canonical_row(*row[:5]) for row in rows]
    return [
        f'{{"body":{body},"kind":{quoted[kind]},"seq":{seq},"time":"{time}","version":{version}}}'.encode(
            "utf-8", "surrogateescape"
        )
        for seq, kind, version, time, body, *_ in rows
    ]


def now() -> str:
    """The present as ISO 8601 UTC with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
