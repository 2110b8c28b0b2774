"""Which documents nobody may learn from: those of validation and test, and all of their groups."""

from __future__ import annotations

from collections.abc import Iterator

from treadle.text.corpus import Corpus
from treadle.text.dataset import DATASET_FILE, Dataset, split_groups
from treadle.text.document import Document
from treadle.text.examples import group_of

SIDES = ("validation", "test")


class HeldOutDocuments:
    """``document in held_out`` for the documents a dataset was made from."""

    def __init__(self, dataset: Dataset) -> None:
        self._by = dataset.read_json(DATASET_FILE)["split"]["by"]
        self._sides = split_groups(dataset.path())
        self._used = {name for side in SIDES for name in dataset.split_document_ids(side)}

    def __contains__(self, document: Document) -> bool:
        return document.id in self._used or self._sides.get(group_of(document, self._by)) in SIDES


def documents_on(side: str, cleaned: Corpus, dataset: Dataset) -> Iterator[list[Document]]:
    """Batches of the documents to learn from (``train``), or of those that are held out (``validation``)."""
    held_out = HeldOutDocuments(dataset)
    for batch in cleaned.documents():
        yield [document for document in batch if (document in held_out) is (side == "validation")]
