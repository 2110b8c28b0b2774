"""A source says where documents come from. It is found by name, and its settings are the parameters of its
class.

The built-in sources come in through the entry-point group ``treadle.sources`` like anybody's; a project's own
is ``module:Class``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from treadle.core.document_ids import raw_id
from treadle.core.errors import TreadleError, UserError
from treadle.core.place import about
from treadle.core.plugins import load
from treadle.core.settings import bind
from treadle.text.accounting import Accounting, Dropped, Quarantined
from treadle.text.document import Document
from treadle.text.first_seen import FirstSeen
from treadle.text.takeover import current
from treadle.text.units import Known, Unit

GROUP = "treadle.sources"
_BATCH = 1000  # documents
_BATCH_CHARACTERS = 8_000_000


class Source(Protocol):
    """Settings are the keyword parameters of the class; one called ``context`` is given, not set.

    ``version`` (optional class attribute, an integer) goes up when the same source would be read differently. A source
    that keeps a snapshot has ``due()`` and ``refresh(tell, asked=False)`` besides (``OpenSource`` says what they do).
    One that can tell what changed has ``read_changed(known)``: what ``read`` gives, with a ``units.Unit`` before what
    comes out of each unit, and nothing behind one that is known. ``choosing`` are its settings that say which units
    there are, and do not change what comes out of one. ``instead`` are settings in which ``${env:NAME}`` is of no use,
    with what to do where one holds a secret.
    """

    def fingerprint(self) -> str:
        """Changes when ``read`` would give something else; cheap, since every ``plan`` asks. Enters the
        step's key.
        """
        ...

    def read(self, cursor: str | None = None) -> Iterator[Document | Dropped | Quarantined]:
        """Every piece there is, once, in an order that depends on the source alone; from ``cursor`` on
        when given.
        """
        ...


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source may know of its surroundings. ``keyed`` turns a person's name into a digest only the
    project can make.
    """

    project: Path
    keyed: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class OpenSource:
    """A source ready to be read, with the words that name it in keys and messages. ``settings`` are those that decide
    what comes out of a unit.
    """

    name: str
    version: str
    source: Source
    settings: Mapping[str, Any] = field(default_factory=dict)

    def changed(self, known: Known) -> Iterator[Document | Dropped | Quarantined | Unit]:
        """Every piece, but of known units; without any unit where the source cannot tell what changed."""
        read: Callable[[Known], Iterator[Document | Dropped | Quarantined | Unit]] | None
        read = getattr(self.source, "read_changed", None)
        yield from read(known) if read else self.source.read()

    def fingerprint(self) -> str:
        """The source's own, with its code's version before it."""
        return f"{self.name}@{self.version} {self.source.fingerprint()}"

    def due(self) -> str | None:
        """Why ``refresh`` would bring something home; None for a source that has nothing of its own to keep."""
        asked: Callable[[], str | None] | None = getattr(self.source, "due", None)
        return asked() if asked else None

    def refresh(self, tell: Callable[[str], None], *, asked: bool = False) -> None:
        """Let a source that keeps a snapshot of what lies elsewhere bring it up to date where that is due, or
        ``asked`` for. Collecting does this before it takes fingerprints; planning never does.
        """
        bring: Callable[..., None] | None = getattr(self.source, "refresh", None)
        if bring:
            bring(tell, asked=asked)


def open_source(settings: Mapping[str, Any], context: SourceContext, where: str = "collect.sources") -> OpenSource:
    """The source that an entry of ``collect.sources`` describes: ``type`` and the settings of its class.

    ``UserError`` for an unknown type, an unknown or missing setting, or a value of the wrong type.
    """
    name = settings.get("type")
    if not isinstance(name, str):
        raise UserError(f"{where}: a source needs a type, for example `type: files`")
    given = {key: value for key, value in settings.items() if key != "type"}
    with about(where):
        plugin = load(GROUP, name, context.project)
        source = bind(plugin.value, given, where=f"{where} ({name})", provided={"context": context})
    version = plugin.version or str(getattr(plugin.value, "version", 1))
    choosing = getattr(plugin.value, "choosing", ())
    return OpenSource(name, version, source, {key: value for key, value in given.items() if key not in choosing})


def instead_of_secret(settings: Mapping[str, Any], key: str) -> str | None:
    """What to do where a setting of a source holds a secret; None where it may name a variable of the environment."""
    try:
        source = load(GROUP, str(settings.get("type", "files"))).value
    except TreadleError:  # it is told of what is no source later
        return None
    told: str | None = getattr(source, "instead", {}).get(key)
    return told


def read_sources(sources: Iterable[OpenSource], accounting: Accounting) -> Iterator[list[Document]]:
    """Batches of the documents of all sources in turn; what is not a document is counted in ``accounting``.

    A piece met twice (two sources that overlap) is dropped the second time. ``accounting`` is complete when
    the iterator ends.
    """
    seen = FirstSeen()
    batch: list[Document] = []
    characters = 0
    following = current()
    for opened in sources:
        for piece in following.pieces(opened) if following else opened.source.read():
            accounting.read += 1
            if isinstance(piece, Quarantined):
                accounting.quarantined.append(piece)
                continue
            if isinstance(piece, Dropped):
                accounting.drop(piece)
                continue
            if seen.keep(raw_id(piece.id)) is not None:
                reason = "an earlier source or row gave this very document"
                accounting.drop(Dropped(piece, "collect.same_document", reason))
                if following:
                    following.spoil()
                continue
            if following:
                following.kept(piece.id)
            accounting.kept += 1
            batch.append(piece)
            characters += len(piece.text)
            if len(batch) >= _BATCH or characters >= _BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch
