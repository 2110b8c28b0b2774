"""A dump of a wiki (MediaWiki's XML export), page by page, of whatever size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.parsers import expat

from treadle.text.rows import BadRow

_BLOCK = 1 << 16
_KEPT = frozenset({"title", "ns", "id", "timestamp", "text", "model"})


@dataclass(slots=True)
class Page:
    """The last revision of a page: ``text`` is wikitext. ``redirect`` is true for a page that only points elsewhere."""

    offset: int
    number: int
    values: dict[str, str] = field(default_factory=dict)
    redirect: bool = False
    too_long: bool = False


def pages(stream: BinaryIO, largest: int) -> Iterator[Page | BadRow]:
    """Every page. XML that breaks costs what follows, which is told."""
    reader = _Pages(largest)
    place = 0
    while True:
        data = stream.read(_BLOCK)
        try:
            reader.parser.Parse(data, not data)
        except expat.ExpatError as error:
            yield from reader.taken()
            yield BadRow(reader.parser.ErrorByteIndex, f"the rest cannot be read: {_explained(error)}")
            return
        except _EntityError:
            yield from reader.taken()
            yield BadRow(place, "the rest was not read: it declares entities, which could stand for anything")
            return
        yield from reader.taken()
        place += len(data)
        if not data:
            return


class _EntityError(ValueError):
    pass


class _Pages:
    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._done: list[Page | BadRow] = []
        self._page: Page | None = None
        self._number = 0
        self._path: list[str] = []
        self._words: list[str] | None = None
        self._size = 0
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.EntityDeclHandler = self._entity

    def taken(self) -> list[Page | BadRow]:
        """Pages that are complete and were not taken yet."""
        done, self._done = self._done, []
        return done

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._path) > 100:
            raise _EntityError
        self._path.append(name)
        if name == "page":
            self._number += 1
            self._page = Page(self.parser.CurrentByteIndex, self._number)
        elif self._page is not None:
            if name == "redirect":
                self._page.redirect = True
            # `id` stands in revisions and contributors too.
            if name in _KEPT and (name != "id" or self._path[-2] == "page"):
                self._words, self._size = [], 0

    def _end(self, name: str) -> None:
        if self._path:
            self._path.pop()
        page = self._page
        if page is None:
            return
        if self._words is not None and name in _KEPT:
            page.values[name] = "".join(self._words)
            self._words = None
        if name == "page":
            self._page = None
            too_long = BadRow(page.offset, f"page {page.number}: longer than {self._largest} characters")
            self._done.append(too_long if page.too_long else page)

    def _characters(self, data: str) -> None:
        if self._words is not None and self._page is not None:
            self._size += len(data)
            if self._size > self._largest:
                self._page.too_long = True
            else:
                self._words.append(data)

    def _entity(self, *_: object) -> None:
        raise _EntityError


def _explained(error: expat.ExpatError) -> str:
    return "the dump is cut off" if error.code in (3, 5) else "not well-formed XML"
