"""Names of documents: what people call them, read from the corpora that hold them."""

from __future__ import annotations

from collections.abc import Iterator

from treadle.core.errors import MissingExtra
from treadle.record.record import Record
from treadle.text.corpus import Corpus, read_names


class DocumentNames:
    """Looks names up in every corpus that is still there, the latest first. Without pyarrow, ids stand for names."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def label(self, ids: list[str]) -> dict[str, str]:
        """The name of each document that has one."""
        return {document: locator for document, (_, locator) in self.places(ids).items()}

    def places(self, ids: list[str]) -> dict[str, tuple[str, str]]:
        """Source and locator of each document that has them: where it came from, whatever it said."""
        wanted, found = set(ids), {}
        for document, source, locator in self._names() if wanted else ():
            if document in wanted:
                found[document] = (source, locator)
                wanted.discard(document)
                if not wanted:
                    break
        return found

    def locate(self, name: str) -> list[str]:
        """Ids of the documents with that locator, in the latest corpus that has one."""
        for corpus in self._corpora():
            found = sorted({document for document, _, locator in _read(corpus) if locator == name})
            if found:
                return found
        return []

    def _names(self) -> Iterator[tuple[str, str, str]]:
        for corpus in self._corpora():
            yield from _read(corpus)

    def _corpora(self) -> Iterator[Corpus]:
        sql = "SELECT digest FROM artifacts WHERE kind = 'corpus' GROUP BY digest ORDER BY max(seq) DESC"
        for (digest,) in self._record.workspace.database.query(sql):
            corpus = Corpus(digest, self._record.store)
            if self._record.store.has(digest) and corpus.has_files():
                yield corpus


def _read(corpus: Corpus) -> Iterator[tuple[str, str, str]]:
    try:
        yield from read_names(corpus.path())
    except MissingExtra:
        return
