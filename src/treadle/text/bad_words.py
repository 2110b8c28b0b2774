"""Texts with words that are not wanted, by lists for each language, as C4 leaves such pages out (Raffel et al. 2020,
section 2.2). The lists are one's own: none comes with Treadle.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from treadle.core.errors import UserError
from treadle.text.accounting import Dropped
from treadle.text.document import Document
from treadle.text.list_files import ListFiles
from treadle.text.transform import Piece, TransformContext, declare
from treadle.text.words import Word, located_words, words_of

_C4 = "C4 (Raffel et al. 2020, 2.2)"
_UNSPACED = ("ja", "th", "zh")  # words stand next to each other, so an entry counts wherever it stands
_LANGUAGE = re.compile(r"[a-z]{2,3}\Z")
_MOST_WORDS = 8  # of an entry


@declare(version=1)
class BadWords:
    """Drops texts with more listed words than ``max_count``, or a larger share of their words than ``max_share``:
    `badwords.max_count`, `badwords.max_share`. Without either, one is too many.

    ``words`` are lists by language (``en``, ``de`` ...), ``files`` the names of text files by language, one entry a
    line; an entry may be several words. Case does not matter. A document whose field ``language`` names one of these
    languages is judged by that list alone, any other by all of them.
    """

    def __init__(
        self,
        *,
        words: dict[str, list[str]] | None = None,
        files: dict[str, str] | None = None,
        max_count: int | None = None,
        max_share: float | None = None,
        language: str = "language",
        context: TransformContext | None = None,
    ) -> None:
        project = context.project if context else None
        self._files = ListFiles((files or {}).values(), project, "badwords")
        self._lists: dict[str, _List] = {}
        for name, entries in (words or {}).items():
            self._of(name).take(entries)
        for name, file in (files or {}).items():
            self._of(name).take(ListFiles([file], project, "badwords").entries())
        if not any(self._lists.values()):
            raise UserError("badwords lists nothing; for example `badwords: {files: {en: words.txt}}`")
        if max_count is not None and max_count < 0:
            raise UserError(f"badwords: max_count is {max_count}; expected 0 or more")
        if max_share is not None and not 0 <= max_share <= 1:
            raise UserError(f"badwords: max_share is {max_share}; expected a share from 0 to 1")
        self._count = 0 if max_count is None and max_share is None else max_count
        self._share, self._language = max_share, language

    def fingerprint(self) -> str:
        """What the files hold now."""
        return self._files.fingerprint()

    def __call__(self, documents: Sequence[Document]) -> Iterator[Piece]:
        """Each document, or why it is dropped."""
        for document in documents:
            yield self._judged(document)

    def _judged(self, document: Document) -> Piece:
        text = document.text
        own = self._lists.get(str(document.fields.get(self._language, "")))
        words = located_words(text)
        found = [
            place for each in ([own] if own is not None else self._lists.values()) for place in each.found(text, words)
        ]
        if not found:
            return document
        count, share = len(found), min(1.0, len(found) / max(1, len(words)))
        if self._count is not None and count > self._count:
            rule, reason = "max_count", f"{count} listed words, more than {self._count}"
        elif self._share is not None and share > self._share:
            rule, reason = "max_share", f"{share:.4g} of the words listed, more than {self._share:.4g}"
        else:
            return document
        return Dropped(document, f"badwords.{rule}", f"{reason} ({_C4})", span=min(found))

    def _of(self, language: str) -> _List:
        if not _LANGUAGE.match(language):
            raise UserError(f"badwords: {language[:40]!r} is no language; expected one such as en")
        return self._lists.setdefault(language, _List(language in _UNSPACED))


@dataclass(slots=True)
class _List:
    """The entries of one language: runs of words by their first, or pieces of text where nothing divides words."""

    unspaced: bool
    runs: dict[str, set[tuple[str, ...]]] = field(default_factory=dict)
    pieces: set[str] = field(default_factory=set)
    _pattern: re.Pattern[str] | None = None

    def __bool__(self) -> bool:
        return bool(self.runs or self.pieces)

    def take(self, entries: Iterable[str]) -> None:
        """More entries."""
        for entry in entries:
            words = tuple(words_of(entry))
            if not words or len(words) > _MOST_WORDS:
                raise UserError(f"badwords: {entry[:60]!r} is no entry; expected one to {_MOST_WORDS} words a line")
            if self.unspaced:
                self.pieces.add(entry.strip())
            else:
                self.runs.setdefault(words[0], set()).add(words)
        if self.pieces:
            longest_first = sorted(self.pieces, key=lambda piece: (-len(piece), piece))
            self._pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)

    def found(self, text: str, words: Sequence[Word]) -> Iterator[tuple[int, int]]:
        """Where entries stand, the longest at each place; half-open ranges of characters."""
        if self._pattern is not None:
            yield from (found.span() for found in self._pattern.finditer(text))
        for place, word in enumerate(words):
            for run in sorted(self.runs.get(word.text, ()), key=len, reverse=True):
                last = place + len(run)
                if tuple(each.text for each in words[place:last]) == run:
                    yield word.start, words[last - 1].end
                    break
