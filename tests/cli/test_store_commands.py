"""`treadle push`, `pull` and `gc` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from treadle.cli.main import main
from treadle.project import open_project

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
