"""What nothing in the record needs goes, what anything needs stays, and `verify` accepts exactly that absence."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stores import KINDS, make_old, remove, stored_at
from treadle.core.artifacts import Artifact
from treadle.core.driver import Driver
from treadle.core.errors import Corrupt
from treadle.core.ledger import Fact
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.core.verify import verify
from treadle.core.workspace import Workspace
from treadle.record.garbage import Garbage, Limits, collect, find_garbage
from treadle.record.lineage import Lineage
from treadle.record.record import PROJECTIONS, Record
from treadle.record.turn import TurnInputs
from treadle.record.version import Version

ROWS = (Limits(older_than=0, grace=0), Limits(keep_versions=1, grace=0))
ANY_AGE = Limits(grace=0)


class Corpus(Artifact):
    kind = "corpus"


class Model(Artifact):
    kind = "model"


class Evaluation(Artifact):
    kind = "evaluation"


@step(version=1, name="tests.gather")
def gather(*, name: str, run: Run) -> Corpus:
    with run.create(Corpus) as made:
        (made.path / "texts").write_text(name * 100)
        (made.path / "same").write_text("in every corpus")
        made.add_documents([f"doc:{index:064x}" for index in range(3)])
        return made.commit()


@step(version=1, name="tests.train")
def train(corpus: Corpus, *, rate: float, run: Run) -> Model:
    with run.create(Model) as made:
        (made.path / "weights").write_bytes(f"{corpus.digest} {rate}".encode() * 1000)
        made.add_documents(corpus.document_ids())
        return made.commit()


@step(version=1, name="tests.evaluate")
def evaluate(model: Model, *, run: Run) -> Evaluation:
    with run.create(Evaluation) as made:
        (made.path / "scores").write_text(model.digest)
        return made.commit()


@pytest.fixture(params=["plain", "packed-encrypted"])
def record(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Record]:
    kind = KINDS[request.param]
    kind.use(monkeypatch)
    with Workspace(tmp_path / "store", projections=PROJECTIONS, cipher=kind.cipher) as workspace:
        yield Record(workspace, "models-demo")


@pytest.fixture
def driver(record: Record) -> Driver:
    return Driver(record.runs, record.store.root, seed=1)


def turn(record: Record, driver: Driver, rate: float, name: str = "a") -> tuple[Version, Corpus, Evaluation]:
    corpus = driver.run(gather, name=name)
    model = driver.run(train, corpus, rate=rate)
    evaluation = driver.run(evaluate, model)
    return record.versions.register("model", model.digest, None), corpus, evaluation


def free(record: Record, limits: Limits) -> Garbage:
    """Collect, after it was announced as it then happens."""
    announced = find_garbage(record, limits)
    before = {name for name, _ in record.store.objects()}
    with record.workspace.exclusive():
        found = find_garbage(record, limits)
        freed = collect(record, found, limits)
    gone = before - {name for name, _ in record.store.objects()}
    assert gone == announced.unnamed.keys() | announced.unneeded.keys()
    assert freed == announced.public()["bytes"]
    return found


def has(record: Record, digest: str) -> bool:
    return record.store.has(digest)


def test_what_no_row_names_goes_once_it_is_old(record: Record, driver: Driver) -> None:
    turn(record, driver, 0.1)
    left = record.store.put_bytes(b"left by a killed run")
    found = find_garbage(record, Limits(grace=60))
    there = stored_at(record.store, left).length
    assert (found.unnamed, found.waiting) == ({}, {left: there})
    make_old(record.store, left, time.time() - 120)
    assert free(record, Limits(grace=60)).unnamed == {left: there}
    assert verify(record.workspace).ok
    assert find_garbage(record, ANY_AGE).public()["objects"] == 0
    assert record.ledger.last("gc") is None  # nothing is absent that a row names


def test_what_is_put_again_is_young_again(record: Record) -> None:
    left = record.store.put_bytes(b"left by a killed run")
    make_old(record.store, left)
    found = find_garbage(record, Limits())
    assert found.unnamed == {left: stored_at(record.store, left).length}
    record.store.put_bytes(b"left by a killed run")  # between the look and the deletion
    assert collect(record, found, Limits()) == 0
    assert record.store.has_object(left)


def test_what_a_killed_step_would_go_on_from_goes_when_it_is_as_old_as_one_says(record: Record) -> None:
    folder = record.store.root / "cache" / "checkpoints" / "a"
    folder.mkdir(parents=True)
    old, new = folder / "old", folder / "new"
    old.write_bytes(b"12345")
    new.write_bytes(b"123")
    os.utime(old, (time.time() - 7200,) * 2)
    assert find_garbage(record, Limits(grace=0)).left_off == {}
    assert free(record, Limits(older_than=3600)).left_off == {old: 5}
    assert [*folder.iterdir()] == [new]


@pytest.mark.parametrize("limits", [ANY_AGE, *ROWS])
def test_what_a_running_run_holds_stays(record: Record, driver: Driver, limits: Limits) -> None:
    corpus = driver.run(gather, name="taken")
    run = record.runs.start(
        "tests.own", version=1, key="k", parameters={}, inputs={"corpus": corpus.digest}, seed=1,
        progress=lambda *_: None, folder=record.store.root,
    )  # fmt: skip
    with run.create(Model) as made:
        (made.path / "weights").write_bytes(b"finished, not named yet")
        model = made.commit()
    free(record, limits)
    assert has(record, corpus.digest)
    assert has(record, model.digest)
    record.runs.finish(run, "done", seconds=1, outputs={"model": model})
    assert verify(record.workspace).ok


def test_what_a_failed_run_made_needs_what_it_was_made_of(record: Record, driver: Driver) -> None:
    corpus = driver.run(gather, name="taken")
    run = record.runs.start(
        "experiment.fit", version=1, key="k", parameters={}, inputs={"corpus": corpus.digest}, seed=1,
        progress=lambda *_: None, folder=record.store.root, kind="experiment",
    )  # fmt: skip
    with run.create(Model) as made:
        (made.path / "weights").write_bytes(b"before the error")
        model = made.commit()
    record.runs.note(run.id, outputs={"model": model})
    record.runs.finish(run, "failed", seconds=1, outputs={"model": model}, error="out of memory")
    free(record, Limits(older_than=0, grace=0))
    assert has(record, model.digest)
    assert has(record, corpus.digest)
    lineage = Lineage(record.workspace, record.versions, record.documents, lambda ids: {}, 0)
    assert lineage._made_of(corpus.digest) == {model.digest: [corpus.digest]}


def test_a_version_needs_what_it_was_made_of_and_what_was_found_out_about_it(record: Record, driver: Driver) -> None:
    version, corpus, evaluation = turn(record, driver, 0.1)
    alone = driver.run(gather, name="nobody asked again")
    found = free(record, Limits(older_than=0, grace=0))
    assert set(found.artifacts) == {alone.digest}
    assert all(has(record, digest) for digest in (version.digest, corpus.digest, evaluation.digest))
    assert "same" in {entry.path for entry in alone.entries()}  # the manifest tells what it was
    assert record.store.has_object(next(entry.digest for entry in alone.entries() if entry.path == "same"))
    checked = verify(record.workspace)
    assert checked.ok
    assert checked.public()["checked"]["collected"] == 1  # type: ignore[index]


def test_only_the_latest_versions_and_those_with_an_alias_stay(record: Record, driver: Driver) -> None:
    made = [turn(record, driver, rate)[0] for rate in (0.1, 0.2, 0.3, 0.4)]
    record.versions.point("champion", made[0], reason="gates passed", release=made[1].digest)
    found = free(record, Limits(keep_versions=1, grace=0))
    assert found.public()["artifacts"] == {"evaluation": 1, "model": 1}
    assert [has(record, version.digest) for version in made] == [True, True, False, True]
    assert verify(record.workspace).ok
    assert free(record, Limits(keep_versions=1, grace=0)).public()["objects"] == 0


def test_what_may_answer_stays(record: Record, driver: Driver) -> None:
    made = [turn(record, driver, number / 10)[0].digest for number in range(10)]
    record.deployments.record(made[0], "model@v1", "http://127.0.0.1:1")
    record.canaries.begin("can-1", made[1], made[1], made[2], 0.1)
    record.turns.begin(("asked",), TurnInputs(made[3], made[4], model=made[7]), "")
    limits = Limits(keep_versions=1, grace=0, pinned=frozenset({made[8]}))
    free(record, limits)
    assert [has(record, digest) for digest in made] == [True, True, True, True, True, False, False, True, True, True]
    record.canaries._ledger.append(record.canaries.decided("can-1", "take_back", "worse", {}))
    free(record, limits)
    assert [has(record, digest) for digest in made] == [True, False, False, True, True, False, False, True, True, True]
    assert verify(record.workspace).ok


def test_a_collected_step_runs_again_and_must_then_be_there(record: Record, driver: Driver) -> None:
    lost = driver.run(gather, name="lost")
    free(record, Limits(older_than=0, grace=0))
    assert not has(record, lost.digest)
    again = driver.run(gather, name="lost")
    assert again == lost
    assert has(record, lost.digest)
    remove(record.store, next(entry.digest for entry in lost.entries() if entry.path == "texts"))
    (problem,) = verify(record.workspace).problems
    assert "texts of artifact corpus" in problem.detail


def test_nothing_else_may_be_absent(record: Record, driver: Driver) -> None:
    version, corpus, _ = turn(record, driver, 0.1)
    alone = driver.run(gather, name="alone")
    free(record, Limits(older_than=0, grace=0))
    files = {entry.path: entry.digest for entry in corpus.entries()}
    for digest in (version.digest, files["same"], alone.digest, files["documents.ids"]):
        data = record.store.read(digest)
        remove(record.store, digest)
        assert digest in {problem.ref for problem in verify(record.workspace).problems}
        record.store.put_bytes(data)
    assert verify(record.workspace).ok


def test_an_answer_still_leads_to_its_documents(record: Record, driver: Driver) -> None:
    old = turn(record, driver, 0.1)[0]
    turn(record, driver, 0.2)
    free(record, Limits(keep_versions=1, grace=0))
    assert not has(record, old.digest)
    lineage = Lineage(record.workspace, record.versions, record.documents, lambda ids: {each: each for each in ids}, 0)
    graph = lineage.of_artifact(old.digest, "model")
    assert sum(node.kind == "document" for node in graph.nodes.values()) == 3
    assert graph.verified


def test_with_a_damaged_manifest_nothing_goes(record: Record, driver: Driver) -> None:
    version, *_ = turn(record, driver, 0.1)
    remove(record.store, version.digest)
    with pytest.raises(Corrupt, match="nothing was deleted"):
        find_garbage(record, ANY_AGE)


KILLED = """
import os, sys
from pathlib import Path
from treadle.core.store import Store
from treadle.core.workspace import Workspace
from treadle.record.garbage import Limits, collect, find_garbage
from treadle.record.record import PROJECTIONS, Record

count = int(sys.argv[2])
unlink = Path.unlink
def stop(path, **more):
    global count
    if "objects" in path.parts:
        if count == 0:
            os._exit(9)
        count -= 1
    unlink(path, **more)
with Workspace(Path(sys.argv[1]), projections=PROJECTIONS) as workspace, workspace.exclusive():
    record = Record(workspace, "models-demo")
    limits = Limits(keep_versions=1, grace=0)
    Path.unlink = stop
    collect(record, find_garbage(record, limits), limits)
"""


@pytest.mark.parametrize("count", [0, 1, 3])
def test_killed_in_the_middle_the_same_command_goes_on(tmp_path: Path, count: int) -> None:
    with Workspace(tmp_path / "store", projections=PROJECTIONS) as workspace:
        record = Record(workspace, "models-demo")
        driver = Driver(record.runs, tmp_path, seed=1)
        made = [turn(record, driver, rate)[0] for rate in (0.1, 0.2, 0.3)]
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "store", str(count)], timeout=60)
    assert done.returncode == 9
    with Workspace(tmp_path / "store", projections=PROJECTIONS) as workspace:
        record = Record(workspace, "models-demo")
        assert verify(workspace).ok
        free(record, Limits(keep_versions=1, grace=0))
        assert [has(record, version.digest) for version in made] == [False, False, True]
        assert find_garbage(record, Limits(keep_versions=1, grace=0)).public()["objects"] == 0
        assert verify(workspace).ok


def test_kinds_of_rows_that_nobody_knows_hold_what_they_name(record: Record) -> None:
    kept = record.store.put_bytes(b"cited by a later Treadle")
    record.ledger.append(Fact("of.a.later.version", {"what": {"deep": [kept]}}))
    assert free(record, ANY_AGE).unnamed == {}
    assert record.store.has_object(kept)
