"""Lineage of anything: the exact walk over the record, and beside it the training documents an answer is like."""

from __future__ import annotations

from treadle.core.errors import Corrupt, MissingExtra
from treadle.lm.model import Model
from treadle.record.interaction import Interaction
from treadle.record.lineage import Graph, Lineage
from treadle.record.record import Record
from treadle.record.reference import resolve
from treadle.record.release import Release
from treadle.stages.track.names import DocumentNames
from treadle.stages.track.origins import add_origin
from treadle.text.handles import Index

CLOSEST, SHOWN = 20, 3  # documents that are compared, and told of
LIMIT = 100  # nodes of one kind that are shown unless asked otherwise


def lineage(record: Record, ref: str, *, down: bool = False, limit: int = LIMIT, indexed: bool = False) -> Graph:
    """The graph around ``ref``: up to its documents, or ``down`` to what came of it.

    ``indexed`` answers from the index of interactions, which is quick however many there are.
    """
    names = DocumentNames(record)
    reference = resolve(record, ref, names.locate)
    interactions = record.interactions if indexed else None
    walk = Lineage(record.workspace, record.versions, record.documents, names.label, limit, interactions)
    if reference.kind == "interaction":
        return _of_interaction(record, walk, reference.id)
    if reference.kind == "document":
        return walk.of_document(reference.id) if down else _above_document(record, walk, reference.id, names)
    if reference.kind == "run":
        return walk.of_run(reference.id)
    return walk.below_artifact(reference.id, reference.of) if down else walk.of_artifact(reference.id, reference.of)


def _above_document(record: Record, walk: Lineage, identifier: str, names: DocumentNames) -> Graph:
    graph = walk.alone(identifier)
    add_origin(record, graph, identifier, names.label)
    return graph


def _of_interaction(record: Record, walk: Lineage, identifier: str) -> Graph:
    row = record.recorder.find_interaction(identifier)
    assert row is not None
    graph = walk.of_interaction(row.to_dict())
    for document, name, likeness in similar(record, row):
        graph.add(document, "document", name)
        graph.link(identifier, document, "similar")
        graph.likeness[document] = likeness
    return graph


def similar(record: Record, row: Interaction) -> list[tuple[str, str, str]]:
    """Training documents that share long spans with the answer: id, name, and what they share. Likeness, not cause."""
    if not row.answer or not record.store.has(row.release):
        return []
    spec = Release(row.release, record.store).read()
    found = index_of(record, spec.dataset)
    if found is None or not record.store.has(spec.model):
        return []
    given = Model(spec.model, record.store)
    try:
        from treadle.text.similarity import open_index

        question = "\n".join(message["content"] for message in row.messages or () if message["role"] == "user")
        close = open_index(found.path()).closest(question, row.answer, limit=CLOSEST)
    except (ModuleNotFoundError, MissingExtra, Corrupt):
        return []
    return [
        (like.document, like.locator, f"{like.locator}: {like.words} words verbatim, {like.span!r}")
        for like in close
        if given.has_document(like.document)  # the dataset may hold more than the budget let the model see
    ][:SHOWN]


def index_of(record: Record, dataset: str) -> Index | None:
    """The similarity index over a dataset, where it was made and is still there."""
    for run in record.runs.find(step="prepare.index_examples", status="done"):
        if run.inputs.get("dataset") == dataset and record.store.has(run.outputs["index"]):
            return Index(run.outputs["index"], record.store)
    return None
