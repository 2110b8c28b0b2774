"""Erasure: what is about a person who asked to be forgotten does not get past here, whatever source brings
it again.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from treadle.text.accounting import Dropped
from treadle.text.document import Document, strings
from treadle.text.escapes import readings, unwrapped
from treadle.text.lookalikes import seen
from treadle.text.mentions import IDENTIFIER, data_key, mentions_in
from treadle.text.transform import Apply, Piece

RULE = "suppress.erased"
# Scripts without spaces between words, and Korean, where a particle is joined to a name: each sign is a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_REMEMBERED = 1_000_000  # words and runs of words that are known to be nobody's, so each is digested once


@dataclass(frozen=True, slots=True)
class Suppression:
    """Keyed digests of people: of their name as a source's ``subject`` field has it, or of the words that
    name them.

    ``windows`` are the numbers of words that the entries stand for, so that only runs of those lengths are
    looked up; ``IDENTIFIER`` is among them where an entry stands for an address or a number however it is written.
    """

    entries: frozenset[str] = frozenset()
    windows: tuple[int, ...] = ()

    @classmethod
    def of(cls, entries: Mapping[str, int]) -> Suppression:
        """That of a list: numbers of words by keyed digest."""
        return cls(frozenset(entries), tuple(sorted({words for words in entries.values() if words})))


@dataclass(frozen=True, slots=True)
class Suppress:
    """The transform. ``keyed`` must be picklable where the executor has other processes."""

    suppression: Suppression
    keyed: Callable[[str], str]
    name: str = "suppress"
    ordered: bool = False

    def start(self) -> Apply:
        """Ready to be called with batches."""
        if not self.suppression.entries:
            return _everything
        return partial(_suppressed, Matcher(self.suppression, self.keyed))


class Matcher:
    """Looks people up in texts. Remembers what it has already found to be nobody's."""

    def __init__(self, suppression: Suppression, keyed: Callable[[str], str]) -> None:
        self._suppression = suppression
        self._keyed = keyed
        self._nobody: set[str] = set()
        self._lengths = tuple(count for count in suppression.windows if count > 0)
        self._key = data_key(keyed) if IDENTIFIER in suppression.windows else None

    def matches(self, document: Document) -> bool:
        """Whether the document is about, or names, somebody who is suppressed."""
        if document.subject is not None and document.subject in self._suppression.entries:
            return True
        return bool(self._suppression.windows) and any(self.names_somebody(text) for text in strings(document))

    def names_somebody(self, text: str) -> bool:
        """Whether a run of words of ``text``, or an address or number in it, names somebody who is suppressed."""
        for shown in (text, *(read for read, _ in chain(readings(text), unwrapped(text)))):
            if any(self._listed(run) for run in _runs(identifier_words(shown), self._lengths)):
                return True
        return self._key is not None and any(each in self._suppression.entries for each in mentions_in(self._key, text))

    def _listed(self, run: str) -> bool:
        if run in self._nobody:
            return False
        if self._keyed(run) in self._suppression.entries:
            return True
        if len(self._nobody) >= _REMEMBERED:
            self._nobody.clear()
        self._nobody.add(run)
        return False


def identifier_words(text: str) -> list[str]:
    """Words as people are named by them: without what stands between them, and as they look, so neither case nor
    accents nor what nobody sees count."""
    shown = text.lower() if text.isascii() else unicodedata.normalize("NFC", "".join(map(seen, text)))
    return _WORD.findall(shown)


def _runs(words: list[str], lengths: Sequence[int]) -> Iterator[str]:
    for length in lengths:
        if length == 1:
            yield from words
            continue
        for start in range(len(words) - length + 1):
            yield " ".join(words[start : start + length])


def _suppressed(matcher: Matcher, documents: Sequence[Document]) -> Iterator[Piece]:
    for document in documents:
        if matcher.matches(document):
            yield Dropped(document, RULE, "about somebody whose erasure was asked for", private=True)
        else:
            yield document


def _everything(documents: Sequence[Document]) -> Iterator[Piece]:
    yield from documents
