"""``treadle head``, ``prove`` and ``verify --head`` in front of a project whose settings publish heads."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import treadle
from treadle.cli.main import main
from treadle.project import open_project

FILE = """\
name: helper
task: classify
publish_heads: ["file:../heads.jsonl", git:., ../kept/]
collect:
  sources:
    - {type: files, path: reviews.jsonl, fields: {text: review, label: sentiment}}
prepare: {steps: [normalize]}
develop: {base_model: none}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "treadle.yaml").write_text(FILE)
    subprocess.run(["git", "-C", folder, "init", "--quiet"], check=True)
    monkeypatch.chdir(folder)
    return folder


def decide(folder: Path, *, exclusive: bool = True) -> None:
    with open_project(folder) as opened:
        record = opened.record
        if exclusive:
            with record.workspace.exclusive():
                record.approvals.record("model/helper@v1", "approve", "k3:0", None)
        else:
            record.approvals.record("model/helper@v1", "approve", "k3:0", None)


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_decision_goes_to_every_target(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(capsys, "verify")[1]["checked"]["heads"] == 0
    decide(project)
    decide(project, exclusive=False)
    lines = [json.loads(line) for line in (project.parent / "heads.jsonl").read_text().splitlines()]
    assert [line["size"] for line in lines] == [2, 3]
    code, head = called(capsys, "head")
    assert code == 0
    assert lines[1] == {name: head[name] for name in ("size", "root", "signature", "public_key")}
    tags = subprocess.run(["git", "-C", project, "tag"], capture_output=True, text=True, check=True).stdout
    assert tags.split() == ["treadle-head-2", "treadle-head-3"]
    assert len(list((project.parent / "kept").iterdir())) == 2
    code, found = called(capsys, "verify")
    assert (code, found["checked"]["heads"], found["problems"]) == (0, 6, [])


def test_an_older_store_is_noticed_by_plain_verify_and_by_head(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decide(project)
    shutil.copytree(project / ".treadle", project.parent / "older")
    decide(project)
    shutil.rmtree(project / ".treadle")
    (project.parent / "older").rename(project / ".treadle")
    code, found = called(capsys, "verify")
    assert code == 1
    assert {problem["ref"] for problem in found["problems"]} == {"file:../heads.jsonl", "git:.", "../kept/"}
    (project / "treadle.yaml").write_text(FILE.replace("publish_heads", "#"))
    assert called(capsys, "verify")[0] == 0
    assert called(capsys, "verify", "--head", "../heads.jsonl")[0] == 1
    assert called(capsys, "verify", "--head", "git:.")[0] == 1


def test_a_target_that_fails_is_a_warning_and_no_error(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(project / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    decide(project)
    code, found = called(capsys, "verify")
    assert (code, found["problems"]) == (0, [])
    done = subprocess.run(
        [sys.executable, "-m", "treadle", "head", "--json"], cwd=project, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["size"] == 2
    assert "git:.: git" in done.stderr
    assert "a head waits, and the next command tries again" in done.stderr
    subprocess.run(["git", "-C", project, "init", "--quiet"], check=True)
    assert called(capsys, "head")[0] == 0
    assert called(capsys, "verify", "--head", "git:.")[1]["checked"]["heads"] == 4


def test_prove_and_its_mistakes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(capsys, "head", "--publish", "../mine.jsonl")[1]["published"] == "../mine.jsonl"
    decide(project)
    proof = project.parent / "proof"
    code, found = called(capsys, "prove", "2", "--out", "../proof", "--since", "../mine.jsonl")
    assert (code, found["kind"], found["earlier"]) == (0, "approval", 1)
    command = [sys.executable, "-I", "-S", proof / "check.py", proof, "--earlier", project.parent / "mine.jsonl"]
    assert subprocess.run(command, capture_output=True).returncode == 0
    for arguments in (
        ("prove", "2", "--out", "../proof"),
        ("prove", "@champion", "--out", "../new"),
        ("prove", "2", "--out", "../new", "--since", "../none.jsonl"),
        ("head", "--publish", "s3://bucket/heads"),
        ("verify", "--head", "../none.jsonl"),
        ("verify", "--head", "git:../nowhere"),
    ):
        code, found = called(capsys, *arguments)
        assert code == found["error"]["exit_code"] == 2, arguments
        assert found["error"]["message"]
    assert not (project.parent / "new").exists()


def test_a_place_that_is_none_is_refused_where_it_is_written(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "treadle.yaml").write_text(FILE.replace("../kept/", "s3://bucket/heads"))
    code, found = called(capsys, "head")
    assert code == 2
    assert found["error"]["message"].startswith("treadle.yaml:3: publish_heads")


def test_the_same_from_python(project: Path) -> None:
    decide(project)
    assert treadle.head(project, publish="../mine.jsonl")["size"] == 2
    found = treadle.prove("2", "../proof", project, since="../mine.jsonl")
    assert (found["kind"], found["earlier"]) == ("approval", 2)
    assert (project.parent / "proof" / "check.py").exists()
    assert treadle.verify(project, heads=["../mine.jsonl"])["checked"]["heads"] == 4
