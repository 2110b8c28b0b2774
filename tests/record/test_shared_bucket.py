"""Two machines with one bucket and one PostgreSQL ledger share one history; each has a folder of its own."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faulty_proxy import FaultyProxy, ask_again_at_once
from postgresql_server import Server
from stores import remove
from treadle.cli.main import main
from treadle.core.artifacts import Artifact
from treadle.core.bucket_store import BucketStore
from treadle.core.driver import Driver
from treadle.core.errors import Corrupt
from treadle.core.fact import Fact
from treadle.core.remote import Unreachable, open_remote, place
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.core.verify import verify
from treadle.erasing import forget
from treadle.project import open_project
from treadle.record.exchange import pull, push
from treadle.record.garbage import Limits, collect, find_garbage
from treadle.record.record import Record
from treadle.restoring import put_back
from treadle.stages.track.walk import lineage

FILE = """\
name: shared
task: chat
store: {store}
ledger: {ledger}
{more}
collect: {{sources: [{{type: files, path: chats.jsonl}}]}}
develop: {{base_model: none}}
"""


@step(version=1, name="tests.words")
def words(*, text: str, run: Run) -> Artifact:
    with run.create(Artifact) as made:
        (made.path / "text.txt").write_text(text)
        made.add_documents(["doc:" + f"{len(text):064x}"])
        return made.commit()


@step(version=1, name="tests.upper")
def upper(source: Artifact, *, run: Run) -> Artifact:
    with run.create(Artifact) as made:
        (made.path / "text.txt").write_text(source.path("text.txt").read_text().upper())
        made.add_documents(source.document_ids())
        return made.commit()


class Machines:
    """Two machines; the second has the keys of the first."""

    def __init__(self, folder: Path) -> None:
        self.a, self.b = folder / "a", folder / "b"

    @contextmanager
    def on(self, machine: Path) -> Iterator[Record]:
        with open_project(machine) as project:
            yield project.record


@pytest.fixture(params=["plain", pytest.param("encrypted", marks=pytest.mark.slow)])
def machines(
    request: pytest.FixtureRequest, bucket: str, postgresql: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Machines:
    monkeypatch.setenv("SHARED_LEDGER", postgresql.schema())
    monkeypatch.setenv("SHARED_KEY", "5a" * 32)
    more = "encryption: ${env:SHARED_KEY}" if request.param == "encrypted" else ""
    found = Machines(tmp_path)
    for machine in (found.a, found.b):
        machine.mkdir()
        (machine / "treadle.yaml").write_text(FILE.format(store=bucket, ledger="${env:SHARED_LEDGER}", more=more))
    with found.on(found.a):
        pass
    shutil.copytree(found.a / ".treadle" / "keys", found.b / ".treadle" / "keys")
    shutil.copy(found.a / ".treadle" / "head.json", found.b / ".treadle")
    return found


def cycle(record: Record, text: str) -> Artifact:
    """A step, one that takes what it gave, a version, an answer."""
    with record.workspace.exclusive():
        driver = Driver(record.runs, record.workspace.root, seed=1)
        made: Artifact = driver.run(upper, driver.run(words, text=text))
        version = record.versions.register("model", made.digest, None)
        record.versions.point("champion", version, reason="better")
    return made


def test_what_one_did_the_other_sees(machines: Machines) -> None:
    with machines.on(machines.a) as record:
        made = cycle(record, "hello")
        record.workspace.journal.append("metrics", {"id": "point", "values": {"loss": 1}})
    with machines.on(machines.b) as record:
        assert not list((machines.b / ".treadle").rglob("objects/??"))
        version = record.versions.resolve("model/shared@champion")
        assert version.digest == made.digest
        assert Artifact(version.digest, record.store).path("text.txt").read_text() == "HELLO"
        assert record.workspace.journal.find("metrics", "point") == {"id": "point", "values": {"loss": 1}}
        graph = lineage(record, "model@v1")
        assert {node.kind for node in graph.nodes.values()} == {"model", "document"}
        found = verify(record.workspace)
        assert found.ok, found.problems
        assert found.objects > 4
        with record.workspace.exclusive():
            driver = Driver(record.runs, record.workspace.root, seed=1)
            driver.run(words, text="hello")
            driver.run(words, text="bye")
            assert [result.status for _, results in driver.stages for result in results] == ["cached", "done"]
    with machines.on(machines.a) as record:
        assert verify(record.workspace).ok
        assert len(record.runs.find()) == 3


def test_garbage_is_that_of_the_bucket(machines: Machines) -> None:
    with machines.on(machines.a) as record:
        cycle(record, "hello")
        left = record.store.put_bytes(b"left by a killed run")
    with machines.on(machines.b) as record, record.workspace.exclusive():
        garbage = find_garbage(record, Limits(grace=-60))
        assert garbage.unnamed.keys() == {left}
        assert collect(record, garbage, Limits(grace=-60)) > 0
        assert verify(record.workspace).ok
    with machines.on(machines.a) as record:
        assert not record.store.has_object(left)
        assert verify(record.workspace).ok


def test_what_is_damaged_or_gone_there_is_named_and_mended(machines: Machines, tmp_path: Path) -> None:
    with machines.on(machines.a) as record:
        made = cycle(record, "hello")
        assert push(record, str(tmp_path / "remote"), tmp_path).problems == {}
        store = record.store
        assert isinstance(store, BucketStore)
        (file,) = (entry.digest for entry in made.entries() if entry.path == "text.txt")
        store.bucket.remote.write(place("objects", file), b"HELLA")
        store.bucket.remote.delete(place("objects", made.digest))
        store.bucket.remote.write("objects/zz/stray", b"put in by hand")
    for machine in (machines.a, machines.b):
        with machines.on(machine) as record:
            assert {problem.ref for problem in verify(record.workspace).problems} == {file, made.digest, "b3:zzstray"}
    with machines.on(machines.b) as record, record.workspace.exclusive():
        assert isinstance(record.store, BucketStore)
        record.store.bucket.remote.delete("objects/zz/stray")
        assert pull(record, str(tmp_path / "remote"), tmp_path).problems == {}
        assert verify(record.workspace).ok


def test_an_erasure_reaches_the_bucket_or_stays_open(
    machines: Machines, s3: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_again_at_once(monkeypatch)
    with machines.on(machines.a) as record:
        made = cycle(record, "of a person")
    with machines.on(machines.b) as record:
        assert Artifact(made.digest, record.store).path("text.txt").read_text() == "OF A PERSON"
        doomed = {made.digest, *(entry.digest for entry in made.entries())}
    with machines.on(machines.a) as record, record.workspace.exclusive():
        suppression = record.erasures.extend({}).digest
        record.erasures.record("era-1", "k3:0", "deleting", suppression, objects=sorted(doomed))
        dead = FaultyProxy(s3, lambda number: "500")
        with monkeypatch.context() as patch, machines.on(machines.a) as other:
            patch.setenv("AWS_ENDPOINT_URL", dead.url)
            with pytest.raises(Unreachable, match="tried 5 times"):
                other.store.delete(doomed)
        dead.close()
        assert [erasure.request for erasure in record.erasures.open()] == ["era-1"]
        record.store.delete(doomed)
        record.erasures.record("era-1", "k3:0", "done", suppression)
    with machines.on(machines.b) as record:
        with record.workspace.exclusive():
            pass
        assert not record.store.has_object(made.digest)
        assert verify(record.workspace).ok
        files = (path for path in (machines.b / ".treadle").rglob("*") if path.is_file())
        assert not any(b"OF A PERSON" in path.read_bytes() for path in files)


def test_copies_go_by_a_command(machines: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    with machines.on(machines.a) as record:
        made = cycle(record, "hello")
    time.sleep(0.01)
    assert main(["-C", str(machines.a), "gc", "--copies", "--grace", "0s", "--json"]) == 0
    assert '"freed"' in capsys.readouterr().out
    assert main(["-C", str(machines.a), "gc", "--copies", "--dry-run"]) == 2
    with machines.on(machines.a) as record:
        assert isinstance(record.store, BucketStore)
        assert list(record.store.local.objects()) == []
        assert Artifact(made.digest, record.store).path("text.txt").read_text() == "HELLO"


def test_a_project_moves_to_a_bucket_and_loses_nothing(bucket: str, tmp_path: Path) -> None:
    file = tmp_path / "treadle.yaml"
    text = FILE.format(store=".treadle", ledger=".treadle/treadle.db", more="")
    file.write_text(text)
    with open_project(tmp_path) as project:
        made = cycle(project.record, "hello")
    file.write_text(text.replace("store: .treadle", f"store: {bucket}"))
    assert main(["-C", str(tmp_path), "gc", "--copies", "--grace", "0s"]) == 0
    assert main(["-C", str(tmp_path), "verify"]) == 1
    assert main(["-C", str(tmp_path), "pull", str(tmp_path / ".treadle")]) == 0
    assert main(["-C", str(tmp_path), "verify"]) == 0
    shutil.rmtree(tmp_path / ".treadle" / "objects")
    with open_project(tmp_path) as project:
        assert Artifact(made.digest, project.record.store).path("text.txt").read_text() == "HELLO"


@pytest.mark.parametrize("machines", ["encrypted"], indirect=True)
@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_what_is_pushed_is_encrypted_as_the_store_is(
    machines: Machines, bucket: str, tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = str(tmp_path / "remote") if where == "folder" else f"{bucket}-remote"
    with machines.on(machines.a) as record:
        made = cycle(record, "hello" * 100)
        assert push(record, url, tmp_path).problems == {}
        remote = open_remote(url, tmp_path)
        there = {name: remote.read(name) for name in remote.names("")}
        assert len(there) > 4
        assert not any(b"HELLO" in data for data in there.values())
        doomed = {made.digest, *(entry.digest for entry in made.entries())}
        record.store.delete(doomed)
        assert pull(record, url, tmp_path).objects == len(doomed)
        assert Artifact(made.digest, record.store).path("text.txt").read_text() == "HELLO" * 100
    assert main(["-C", str(machines.a), "encrypt", "--remote", url, "--off", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["objects"] == len(there) - 1
    assert any(b"HELLO" in remote.read(name) for name in there)
    assert main(["-C", str(machines.a), "encrypt", "--remote", url]) == 0
    assert not any(b"HELLO" in remote.read(name) for name in there)
    assert main(["-C", str(machines.a), "encrypt", "--remote", str(machines.a / ".treadle")]) == 2


def test_who_was_erased_on_one_stays_so_where_the_other_restores(machines: Machines, tmp_path: Path) -> None:
    jane, file = "jane.roe@example.org", str(tmp_path / "b.zip")
    with machines.on(machines.a) as record:
        row = {"id": "int-1", "user": record.recorder.keyed(jane), "messages": [{"role": "user", "content": jane}]}
        record.workspace.journal.append("interactions", {**row, "time": "2026-01-01T00:00:00Z"})
    assert main(["-C", str(machines.a), "backup", file]) == 0
    assert main(["-C", str(machines.a), "forget", jane]) == 0
    assert main(["-C", str(machines.b), "restore", file, "--older"]) == 0
    assert main(["-C", str(machines.b), "restore"]) == 0
    with machines.on(machines.b) as record:
        suppression = record.erasures.suppression()
        assert suppression is not None
        assert record.recorder.keyed(jane) in suppression.suppressed()
        assert [row["messages"] for row in record.workspace.journal.read("interactions")] == [[]]
        assert record.erasures.open() == []
        assert verify(record.workspace).ok


def test_an_older_backup_takes_the_other_machine_along(
    machines: Machines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with machines.on(machines.a) as record:
        cycle(record, "hello")
    file = tmp_path / "backup.zip"
    assert main(["-C", str(machines.a), "backup", str(file)]) == 0
    with machines.on(machines.b) as record:
        cycle(record, "of machine b")  # the latest that it has seen
    with machines.on(machines.a) as record:
        cycle(record, "later still")
    assert main(["-C", str(machines.a), "restore", str(file), "--older"]) == 0
    head = (machines.b / ".treadle" / "head.json").read_bytes()
    with machines.on(machines.a) as record, record.workspace.database.transaction() as cursor:
        cursor.execute("UPDATE ledger SET mac = 'x' || mac WHERE kind = 'restored'")
    with machines.on(machines.b) as record:  # a row that is not genuine frees nothing
        assert "head.json" in {problem.ref for problem in verify(record.workspace).problems}
        with pytest.raises(Corrupt, match="copy its head"):
            record.ledger.append(Fact("note", {}))
    assert (machines.b / ".treadle" / "head.json").read_bytes() == head
    with machines.on(machines.a) as record, record.workspace.database.transaction() as cursor:
        cursor.execute("UPDATE ledger SET mac = substr(mac, 2) WHERE kind = 'restored'")
    with machines.on(machines.b) as record:
        assert verify(record.workspace).ok, verify(record.workspace).problems
        cycle(record, "goes on")
    with machines.on(machines.a) as record:
        assert verify(record.workspace).ok
    capsys.readouterr()


def test_a_restore_that_was_killed_before_the_bucket_had_the_objects_ends_by_itself(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "encryption" in (machines.a / "treadle.yaml").read_text():
        pytest.skip("a backup of what is encrypted has no objects")
    with machines.on(machines.a) as record:
        made = cycle(record, "hello")
        names = {made.digest, *(entry.digest for entry in made.entries())}
    file = tmp_path / "backup.zip"
    assert main(["-C", str(machines.a), "backup", "--objects", str(file)]) == 0
    with machines.on(machines.a) as record:
        remove_all(record, names)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("treadle.restoring.put_objects", killed)
        with pytest.raises(KeyboardInterrupt):
            put_back(machines.a, file, waiting=lambda _: None)
    with machines.on(machines.a) as record:
        assert not record.store.has(made.digest)
    assert main(["-C", str(machines.a), "restore"]) == 0
    with machines.on(machines.b) as record:
        assert record.store.has(made.digest)
        assert verify(record.workspace).ok
    capsys.readouterr()


def remove_all(record: Record, names: set[str]) -> None:
    for name in names:
        remove(record.store, name)


def test_an_erasure_does_not_begin_where_the_copies_hide_something(machines: Machines) -> None:
    with open_project(machines.a) as project:
        packs = project.record.workspace.root / "objects" / "packs"
        packs.mkdir(parents=True, exist_ok=True)
        (packs / f"{'0' * 64}.pack").write_bytes(b"damaged beyond all knowing")
        before = len(list(project.record.ledger.rows()))
        with project.record.workspace.exclusive(), pytest.raises(Corrupt, match="no object was deleted"):
            forget(project, "Ada Person")
        with pytest.raises(Corrupt, match="no object was deleted"):
            project.record.store.delete({"b3:" + "1" * 64})
        assert len(list(project.record.ledger.rows())) == before


def test_an_erasure_accounts_for_what_a_row_names_only(machines: Machines) -> None:
    with open_project(machines.a) as project, project.record.workspace.exclusive():
        left = project.record.store.put_bytes(b"left behind by something that was killed")
        assert forget(project, "Ada Person").objects == 1
        assert not project.record.store.has_object(left)
        assert all(left not in row.body["objects"] for row in project.record.ledger.rows("erasure"))
