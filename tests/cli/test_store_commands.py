"""`treadle push`, `pull`, `gc` and `forget` as they are typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from treadle.cli.main import main
from treadle.core.artifacts import Artifact, Builder
from treadle.project import open_project
from treadle.record.record import Record
from treadle.stages.track.names import DocumentNames
from treadle.text.corpus import Corpus, write_corpus
from treadle.text.document import Document, document_id
from treadle.tracking import start_run

FILE = """\
name: helper
task: chat
remotes: {team: ../team, keyed: "s3://bucket/x"}
collect: {sources: [{type: files, path: data.jsonl}]}
develop: {base_model: somewhere}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "project"
    place.mkdir()
    (place / "treadle.yaml").write_text(FILE)
    with open_project(place) as project:
        run = project.record.runs.start(
            "tests.make", version=1, key="k", parameters={}, inputs={}, seed=1, progress=lambda *_: None, folder=place
        )
        project.record.runs.finish(run, "done", seconds=0)
    return place


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def call(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, Any, str]:
    code = main(["-C", str(folder), *arguments, "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err


def test_there_and_back_by_the_name_in_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, sent, _ = call(capsys, folder, "push", "team")
    assert (code, sent["objects"], sent["problems"]) == (0, 2, [])  # what the run knows of its surroundings
    assert (folder.parent / "team" / "remote").read_text() == "1\n"
    here, there = folder / ".treadle" / "objects", folder.parent / "team" / "objects"
    lost = next(path for path in here.rglob("*") if path.is_file())
    lost.unlink()
    code, fetched, _ = call(capsys, folder, "pull", "team")
    assert (code, fetched["objects"]) == (0, 1)
    lost.unlink()
    (there / lost.relative_to(here)).write_bytes(b"?")
    code, fetched, _ = call(capsys, folder, "pull", "team")
    assert (code, len(fetched["problems"])) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pull", "nowhere"), "there is no remote at"),
        (("push", "s3://me:mine@bucket/x"), "holds a secret"),
        (("push", "team", "model@v1"), "there is no model@v1"),
        (("push", "team", "doc:nobody"), "no document is called"),
        (("gc", "--older-than", "soon"), "expected a number and a unit"),
        (("gc", "--keep-versions", "0"), "is not in the range"),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    code, document, err = call(capsys, folder, *arguments)
    assert (code, document["error"]["exit_code"]) == (2, 2)
    assert said in err
    assert len(err.splitlines()) == 1


def test_gc_says_what_would_go(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_project(folder) as project:
        project.record.store.put_bytes(b"left")
    code, found, _ = call(capsys, folder, "gc", "--dry-run", "--grace", "0s")
    assert (code, found["objects"], found["bytes"], found["freed"]) == (0, 1, 4, 0)
    assert main(["-C", str(folder), "gc", "--grace", "0s"]) == 0
    assert "gone: 1 objects" in capsys.readouterr().out
    assert call(capsys, folder, "verify")[1]["checked"]["objects"] == 2


def test_a_store_is_encrypted_and_its_key_changes(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_run("fit", folder=folder, system=None) as run:
        (folder / "notes.txt").write_text("for nobody else")
        digest = run.artifact(folder / "notes.txt").digest
    (folder / "notes.txt").unlink()

    def readable() -> bool:
        return any(b"for nobody else" in path.read_bytes() for path in folder.rglob("*") if path.is_file())

    code, refused, _ = call(capsys, folder, "encrypt")
    assert (code, readable()) == (2, True)
    assert "openssl rand -hex 32" in refused["error"]["message"]
    with (folder / "treadle.yaml").open("a") as file:
        file.write("encryption: ${env:FOLDER_KEY}\n")
    old, new = "ab" * 32, "cd" * 32
    for value, said in ((None, "FOLDER_KEY of the environment is not set"), ("short", "expected keys of 32 bytes")):
        monkeypatch.delenv("FOLDER_KEY", raising=False)
        if value:
            monkeypatch.setenv("FOLDER_KEY", value)
        code, _, err = call(capsys, folder, "verify")
        assert (code, len(err.splitlines())) == (2, 1)
        assert said in err
    monkeypatch.setenv("FOLDER_KEY", old)
    code, done, _ = call(capsys, folder, "encrypt")
    assert (code, done["ok"], readable()) == (0, True, False)
    assert call(capsys, folder, "encrypt")[1]["objects"] == 0
    monkeypatch.setenv("FOLDER_KEY", f"{new} {old}")
    assert call(capsys, folder, "encrypt")[1]["objects"] >= done["objects"]
    monkeypatch.setenv("FOLDER_KEY", old)
    assert "which `encryption` in treadle.yaml does not give" in call(capsys, folder, "verify")[2]
    monkeypatch.setenv("FOLDER_KEY", new)
    assert call(capsys, folder, "verify")[0] == 0
    out = folder.parent / "plain"
    assert call(capsys, folder, "export", "folder", digest, "--out", str(out))[1]["files"] == 1
    assert (out / "notes.txt").read_text() == "for nobody else"
    assert "is there already" in call(capsys, folder, "export", "folder", digest, "--out", str(out))[2]
    assert call(capsys, folder, "encrypt", "--off")[0] == 0
    assert readable()
    (folder / "treadle.yaml").write_text(FILE)
    assert call(capsys, folder, "verify")[0] == 0
    (folder / "treadle.yaml").write_text(FILE + f"encryption: {old}\n")
    code, refused, _ = call(capsys, folder, "verify")
    assert (code, old in refused["error"]["message"]) == (2, False)
    assert "treadle.yaml:6: encryption" in refused["error"]["message"]


def test_a_pull_waits_for_an_erasure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, folder, "push", "team")[0] == 0
    command = [sys.executable, "-m", "treadle", "-C", str(folder), "pull", "team"]
    with open_project(folder) as project:
        record = project.record
        with record.workspace.exclusive():
            (run,) = record.runs.find()
            gone = run.facts["surroundings"]
            pulling = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            assert pulling.stderr is not None
            assert pulling.stderr.readline().startswith("waiting for process")
            suppression = record.erasures.extend({}).digest
            record.erasures.record("era-1", "k3:0", "deleting", suppression, objects=[gone])
            record.store.delete({gone})
            record.erasures.record("era-1", "k3:0", "done", suppression)
        pulling.communicate(timeout=60)
        assert pulling.returncode == 0
        assert not record.store.has_object(gone)


def test_gc_keeps_what_the_lock_pins(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digests = []
    for text in ("pinned", "not pinned"):
        with open_project(folder) as project:
            digests.append(made(project.record, "model", {"weights": text}))
    (folder / "treadle.lock").write_text(f"<<<<<<< ours\nmodel: model@v1 {digests[0]}\n=======\n")
    assert call(capsys, folder, "gc", "--older-than", "0s", "--grace", "0s")[1]["artifacts"] == {"model": 1}
    with open_project(folder) as project:
        assert [project.record.store.has(digest) for digest in digests] == [True, False]


# -- forget


def made(record: Record, kind: str, files: dict[str, str]) -> str:
    """An artifact that a step made; its digest."""
    run = record.runs.start(
        "tests.make", version=1, key="k", parameters={}, inputs={}, seed=1, progress=lambda *_: None, folder=Path()
    )
    with Builder(type("Made", (Artifact,), {"kind": kind}), record.store) as builder:
        for name, text in files.items():
            (builder.path / name).write_text(text)
        artifact = builder.commit()
    record.runs.finish(run, "done", seconds=0, outputs={kind: artifact})
    return artifact.digest


def corpus(record: Record, *texts: str) -> Corpus:
    """A corpus that a step made."""
    run = record.runs.start(
        "tests.make", version=1, key="k", parameters={}, inputs={}, seed=1, progress=lambda *_: None, folder=Path()
    )
    with Builder(Corpus, record.store) as builder:
        documents = [Document(document_id("s", text, b""), "s", text, text) for text in texts]
        builder.add_documents(write_corpus(builder.path, [documents]))
        found = builder.commit()
    record.runs.finish(run, "done", seconds=0, outputs={"corpus": found})
    return found


def test_what_a_failed_run_made_of_a_person_goes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_project(folder) as project:
        taken = corpus(project.record, "Jane Roe lives here.", "nobody")
    (folder / "weights.bin").write_text("learned from them")
    with pytest.raises(RuntimeError), start_run("fit", folder=folder, system=None) as run:
        run.input(taken)
        model = run.artifact(folder / "weights.bin", kind="model")
        raise RuntimeError("out of memory")
    code, found, _ = call(capsys, folder, "forget", "Jane Roe", "--no-rebuild")
    assert (code, found["documents"], found["artifacts"], found["collected"]) == (0, 1, 2, 0)
    with open_project(folder) as project:
        assert not project.record.store.has_object(model.digest)
    assert call(capsys, folder, "verify")[1]["ok"]


def test_a_tag_that_is_called_after_them_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with start_run("fit", folder=folder, system=None, tags={"Jane Roe": "asked"}) as run:
        pass
    with open_project(folder) as project:
        found = project.record.runs.get(run.id)
        assert found is not None
        texts = found.facts["texts"]
        assert b"Jane Roe" in project.record.store.read(texts)
    assert call(capsys, folder, "forget", "format", "--no-rebuild")[1]["objects"] == 0  # a word of Treadle's
    assert call(capsys, folder, "forget", "Jane Roe", "--no-rebuild")[1]["objects"] == 1
    with open_project(folder) as project:
        assert not project.record.store.has_object(texts)


def test_forget_says_what_it_cannot_search(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_project(folder) as project:
        corpus(project.record, "Jane Roe lives here.")
        own = made(project.record, "corpus", {"notes.txt": "no Parquet in it"})
        assert DocumentNames(project.record).locate("Jane Roe lives here.")
        assert project.record.store.has(own)
    assert call(capsys, folder, "forget", "Jane Roe", "--dry-run")[1]["documents"] == 1
    call(capsys, folder, "gc", "--older-than", "0s", "--grace", "0s")
    found = call(capsys, folder, "forget", "Jane Roe", "--dry-run")[1]
    assert (found["documents"], found["collected"]) == (0, 1)
    assert main(["-C", str(folder), "forget", "Jane Roe", "--dry-run"]) == 0
    assert "deleted their texts: 1 corpora" in capsys.readouterr().out
