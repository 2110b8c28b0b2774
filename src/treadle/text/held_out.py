"""Which documents nobody may learn from: those of validation and test, all of their groups, and what was left out of
the dataset because it gives a test away or is of another time."""

from __future__ import annotations

from collections.abc import Iterator

from treadle.text.corpus import Corpus
from treadle.text.dataset import DATASET_FILE, Dataset, split_groups
from treadle.text.document import Document
from treadle.text.evaluation_set import PREFIX
from treadle.text.examples import group_of
from treadle.text.rule_log import RULES_FILE, read_rule_log
from treadle.text.split_time import OTHER_TIME, UNDATED

SIDES = ("validation", "test")


class HeldOutDocuments:
    """``document in held_out`` for the documents a dataset was made from."""

    def __init__(self, dataset: Dataset) -> None:
        self._by = dataset.read_json(DATASET_FILE)["split"]["by"]
        self._sides = split_groups(dataset.path())
        self._used = {name for side in SIDES for name in dataset.split_document_ids(side)}
        self._refused = _refused(dataset)

    def __contains__(self, document: Document) -> bool:
        if document.id in self._used or document.id in self._refused:
            return True
        return self._sides.get(group_of(document, self._by)) in SIDES


def _refused(dataset: Dataset) -> set[str]:
    """Documents of which the dataset dropped an example that gives a test away, or whose time is no time to learn
    from."""
    if not dataset.has(RULES_FILE):
        return set()
    rows = read_rule_log(dataset.path(RULES_FILE))
    return {row.document for row in rows if row.rule.startswith(PREFIX) or row.rule in (OTHER_TIME, UNDATED)}


def documents_on(side: str, cleaned: Corpus, dataset: Dataset) -> Iterator[list[Document]]:
    """Batches of the documents to learn from (``train``), or of those that are held out (``validation``)."""
    held_out = HeldOutDocuments(dataset)
    for batch in cleaned.documents():
        yield [document for document in batch if (document in held_out) is (side == "validation")]
