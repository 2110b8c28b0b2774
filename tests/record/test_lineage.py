"""From an answer up to its documents, and from a document down to its answers; the three roles are never mixed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from treadle.core.artifacts import Artifact
from treadle.core.driver import Driver
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.record.feedback import Feedback, new_feedback_id
from treadle.record.interaction import Interaction, new_interaction_id
from treadle.record.lineage import Graph, Lineage
from treadle.record.record import Record
from treadle.record.release import Release, ReleaseSpec
from treadle.stages.track.difference import difference


class Dataset(Artifact):
    kind: ClassVar[str] = "dataset"


class Model(Artifact):
    kind: ClassVar[str] = "model"


def document(number: int) -> str:
    return f"doc:{number:064x}"


@step(version=1, name="tests.prepare")
def prepare(*, numbers: list[int], run: Run) -> Dataset:
    with run.create(Dataset) as made:
        (made.path / "rows").write_text(str(numbers))
        made.add_documents(document(number) for number in numbers)
        return made.commit()


@step(version=1, name="tests.train")
def train(dataset: Dataset, *, run: Run) -> Model:
    with run.create(Model) as made:
        (made.path / "weights").write_text(dataset.digest)
        made.add_documents(dataset.document_ids())
        return made.commit()


@step(version=1, name="tests.bundle")
def bundle(model: Model, dataset: Dataset, *, run: Run) -> Release:
    spec = ReleaseSpec("demo@v1", "chat", model.digest, dataset.digest, {}, "none")
    with run.create(Release) as made:
        (made.path / "release.json").write_text(json.dumps(spec.to_json()))
        made.add_documents(model.document_ids())
        return made.commit()


@pytest.fixture
def releases(record: Record) -> list[Release]:
    """Two releases: of documents 0 to 4, and of 3 to 9."""
    driver = Driver(record.runs, record.workspace.root, seed=1)
    made = []
    for numbers in (list(range(5)), list(range(3, 10))):
        dataset = driver.run(prepare, numbers=numbers)
        model = driver.run(train, dataset)
        record.versions.register("model", model.digest, None)
        made.append(driver.run(bundle, model, dataset))
    return made


def answer(record: Record, release: Release, given: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    row = {"id": new_interaction_id(), "release": release.digest, "given": given or [], "time": "2026"}
    record.workspace.journal.append("interactions", row)
    return row


def lineage(record: Record, limit: int = 0) -> Lineage:
    names = {"label": lambda ids: {each: f"name {each[-1]}" for each in ids}, "limit": limit}
    return Lineage(record.workspace, record.versions, record.documents, **names)


def of_kind(graph: Graph, kind: str) -> set[str]:
    return {node.id for node in graph.nodes.values() if node.kind == kind}


def test_an_answer_reaches_every_document_of_its_model_and_no_other(record: Record, releases: list[Release]) -> None:
    row = answer(record, releases[0], [{"document": document(99), "digest": "k3:x", "title": "Given"}])
    graph = lineage(record).of_interaction(row)
    assert graph.verified
    made = {edge.target for edge in graph.edges if edge.role == "made_by"}
    assert {each for each in made if each.startswith("doc:")} == {document(number) for number in range(5)}
    assert [(edge.source, edge.target) for edge in graph.edges if edge.role == "given"] == [(row["id"], document(99))]
    assert [(edge.source, edge.target) for edge in graph.edges][1:3] == [
        (row["id"], releases[0].digest),
        (releases[0].digest, releases[0].read().model),
    ]
    assert {node.label for node in graph.nodes.values() if node.kind == "model"} == {"model/models-demo@v1"}
    shown = graph.public()
    assert set(shown) == {"root", "nodes", "edges", "truncated", "verified", "erased"}
    assert {(edge["from"], edge["to"]) for edge in shown["edges"]} == {(e.source, e.target) for e in graph.edges}


def test_a_limit_counts_what_it_cuts(record: Record, releases: list[Release]) -> None:
    graph = lineage(record, limit=2).of_interaction(answer(record, releases[1]))
    assert len(of_kind(graph, "document")) == 2
    assert graph.truncated == {"document": 5}


@pytest.mark.parametrize(("number", "holders"), [(0, [0]), (4, [0, 1]), (9, [1]), (50, [])])
def test_a_document_reaches_every_answer(
    record: Record, releases: list[Release], number: int, holders: list[int]
) -> None:
    rows = [answer(record, release) for release in releases]
    record.workspace.journal.seal()
    given = answer(record, releases[1], [{"document": document(50), "digest": "k3:x"}])
    expected = {rows[index]["id"] for index in holders} | ({given["id"]} if number == 50 or 1 in holders else set())
    graph = lineage(record).of_document(document(number))
    assert of_kind(graph, "interaction") == expected
    assert of_kind(graph, "release") == {releases[index].digest for index in holders}
    if number == 50:
        assert [edge.role for edge in graph.edges] == ["given"]


def test_below_an_artifact_is_what_was_made_of_it(record: Record, releases: list[Release]) -> None:
    rows = [answer(record, release) for release in releases]
    graph = lineage(record).below_artifact(releases[0].read().dataset, "dataset")
    assert of_kind(graph, "release") == {releases[0].digest}
    assert of_kind(graph, "interaction") == {rows[0]["id"]}


def test_a_run_stands_between_what_it_took_and_what_it_made(record: Record, releases: list[Release]) -> None:
    run = record.runs.producer(releases[0].read().model)
    assert run is not None
    graph = lineage(record).of_run(run.id)
    assert of_kind(graph, "dataset") == {releases[0].read().dataset}
    assert of_kind(graph, "model") == {releases[0].read().model}


def test_what_is_damaged_or_gone_is_said(record: Record, releases: list[Release]) -> None:
    row = answer(record, releases[0])
    model = releases[0].read().model
    path = record.store._object(Artifact(model, record.store).entries()[1].digest)
    path.chmod(0o644)
    path.write_text("other weights")
    assert not lineage(record).of_interaction(row).verified
    record.store.delete({releases[0].digest})
    graph = lineage(record).of_interaction(row)
    assert not graph.verified
    assert graph.nodes[releases[0].digest].label == f"release {releases[0].digest[3:11]}"


def test_what_an_erasure_accounts_for_is_no_damage(record: Record, releases: list[Release]) -> None:
    row, model = answer(record, releases[0]), releases[0].read().model
    suppression = record.erasures.extend({"k3:one": 0}).digest
    gone = [model, releases[0].digest]
    for phase in ("requested", "deleting", "done"):
        record.erasures.record("era-1", "k3:one", phase, suppression, objects=gone if phase == "deleting" else [])
    record.store.delete(set(gone))
    graph = lineage(record).of_artifact(model, "model")
    assert (graph.verified, graph.erased) == (True, {model: "era-1"})
    assert graph.nodes[model].label.endswith(" (erased by era-1)")
    graph = lineage(record).of_interaction(row)
    assert (graph.verified, graph.erased) == (True, {releases[0].digest: "era-1"})
    found = difference(record, model, releases[1].read().model)
    assert (found.erased, found.documents) == ({model: "era-1"}, {})
    record.store.delete({releases[1].digest})
    assert not lineage(record).of_artifact(releases[1].digest, "release").verified


@pytest.mark.parametrize("number", [0, 4, 9, 50])
def test_the_index_gives_the_same_way_down(record: Record, releases: list[Release], number: int) -> None:
    for release in releases:
        for _ in range(3):
            record.recorder.interaction(interaction(release=release.digest))
    record.interactions.catch_up()
    walk = Lineage(record.workspace, record.versions, record.documents, lambda ids: {}, 100, record.interactions)
    indexed, plain = walk.of_document(document(number)), lineage(record).of_document(document(number))
    assert indexed.nodes.keys() == plain.nodes.keys()
    assert indexed.edges.keys() == plain.edges.keys()
    dataset = releases[0].read().dataset
    indexed, plain = walk.below_artifact(dataset, "dataset"), lineage(record).below_artifact(dataset, "dataset")
    assert indexed.nodes.keys() == plain.nodes.keys()
    assert indexed.edges.keys() == plain.edges.keys()


def test_on_the_way_down_a_limit_counts_what_it_cuts(record: Record, releases: list[Release]) -> None:
    for release in releases:
        for _ in range(3):
            record.recorder.interaction(interaction(release=release.digest))
    record.interactions.catch_up()
    for index in (record.interactions, None):
        walk = Lineage(record.workspace, record.versions, record.documents, lambda ids: {}, 1, index)
        graph = walk.of_document(document(4))
        assert of_kind(graph, "release") == {releases[1].digest}  # the latest
        assert graph.truncated == {"dataset": 1, "model": 1, "release": 1, "interaction": 5}
        assert {edge.source for edge in graph.edges} | {edge.target for edge in graph.edges} <= graph.nodes.keys()


def test_thousands_of_edges_are_quickly_put_in_once() -> None:
    graph = Graph("x")
    for _ in range(3):
        for number in range(20_000):
            graph.link("x", str(number))
    assert len(graph.edges) == 20_000


# -- the recorder


def interaction(**more: Any) -> Interaction:
    values = {
        "id": new_interaction_id(),
        "request": "r",
        "time": "2026-01-01T00:00:00Z",
        "release": "b3:r",
        "model": "m",
        "endpoint": "/v1/chat/completions",
        "status": "ok",
        "store": True,
    }
    return Interaction(**{**values, **more})  # type: ignore[arg-type]


def feedback(on: str, value: float) -> Feedback:
    return Feedback(id=new_feedback_id(), interaction=on, time="2026", kind="thumbs", value=value)


def test_feedback_is_read_from_a_time_on(record: Record) -> None:
    said = [replace(feedback("int-x", 1), time=f"2026-01-0{day}") for day in (1, 2, 3, 4)]
    for number, word in enumerate(said):
        record.recorder.feedback(word)
        if number % 2:
            record.workspace.journal.seal()
    for day in (1, 2, 3, 4, 5):
        assert list(record.recorder.feedback_since(f"2026-01-0{day}")) == said[day - 1 :]


def test_what_was_found_is_at_hand_until_an_erasure(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    one = interaction()
    record.recorder.interaction(one)
    again = Record(record.workspace, "models-demo").recorder
    asked: list[str] = []
    original = record.workspace.journal.find
    monkeypatch.setattr(
        record.workspace.journal, "find", lambda stream, name: asked.append(name) or original(stream, name)
    )
    assert again.find_interaction(one.id) == again.find_interaction(one.id) == one
    assert asked == [one.id]
    record.workspace.journal.rewrite("interactions", lambda row: {**row, "erased": True})
    record.erasures.record("era-1", "k3:0", "requested", record.erasures.extend({}).digest)
    assert again.find_interaction(one.id) is None
    assert again.find_interaction(one.id) is None
    assert asked == [one.id] * 3  # what is not there is looked for each time


def test_feedback_is_found_once_however_it_is_asked_for(record: Record) -> None:
    one, other = interaction(), interaction(release="b3:s")
    for each in (one, other):
        record.recorder.interaction(each)
    said = [feedback(one.id, 1), feedback(one.id, 0)]
    for each_said in said:  # the first is given before anything was read
        record.recorder.feedback(each_said)
    assert list(record.recorder.feedback_on(one.id)) == said
    again = Record(record.workspace, "models-demo").recorder
    assert list(again.feedback_on(one.id)) == said == list(again.all_feedback())
    assert again.feedback_on(other.id) == ()
    assert again.find_interaction(one.id) == one
    assert again.find_interaction(new_interaction_id()) is None
    assert list(again.interactions()) == [one, other]
    assert list(again.interactions("b3:s")) == [other]
