"""``treadle keys`` in front of a project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from treadle.cli.main import main
from treadle.core.backup import Archive
from treadle.project import open_project
from treadle.record.api_key import digest_of
from treadle.record.api_key_use import ApiKeyUse, Report

FILE = """\
name: helper
task: classify
collect:
  sources:
    - {type: files, path: reviews.jsonl, fields: {text: review, label: sentiment}}
prepare: {steps: [normalize]}
develop: {base_model: none}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "treadle.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["keys", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_key_from_its_making_to_its_end(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys"]) == 0
    assert "treadle keys create NAME" in capsys.readouterr().out
    options = ["--tokens", "1000/day", "--tokens", "5000", "--money", "2.50/month", "--requests-per-minute", "60"]
    made = told(capsys, "create", "billing", *options, "--scope", "chat, models", "--expires", "30d")
    assert made["key"].startswith("tk-")
    assert [(each["what"], each["most"], each["per"]) for each in made["limits"]] == [
        ("tokens", 1000, "day"), ("tokens", 5000, "total"), ("money", 2.5, "month"), ("requests", 60, "minute"),
    ]  # fmt: skip
    assert main(["keys", "create", "other", "--model", "helper@v1"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].startswith("tk-")
    assert "only time" in shown
    with open_project(project) as opened:
        workspace = opened.record.workspace
        use = ApiKeyUse(workspace.database, workspace.state, opened.record.api_keys, workspace.root / "uncounted")
        use.exchange(made["id"], Report(1, {("tokens", ""): 70, ("requests", ""): 2, ("money", ""): 10**9}), (), {})
        use.exchange("default", Report(1, {("tokens", ""): 5}), (), {})
    listed = told(capsys, "list")
    assert [each["name"] for each in listed] == ["billing", "other", "default"]
    assert listed[0]["used"] == {"requests": 2, "tokens": 70, "money": 1.0}
    assert made["key"] not in json.dumps(listed)
    assert told(capsys, "revoke", "billing")["state"] == "revoked"
    assert main(["keys", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[1:6] == ["billing", "revoked", "2", "70", "1.0000"]
    assert main(["verify"]) == 0


def test_mistakes_are_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["create", "a b"], "letters, digits"),
        (["create", "a", "--tokens", "many"], "expected a number"),
        (["create", "a", "--expires", "soon"], "such as 30d"),
        (["create", "a", "--scope", "chta"], "did you mean 'chat'"),
        (["create", "a", "--scope", ","], "expected some of"),
        (["create", "a", "--requests-per-minute", "0"], "x>=1"),
        (["revoke", "nobody"], "treadle keys list"),
    ):
        assert main(["keys", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert len(error.splitlines()) == 1
    assert told(capsys, "list") == []


def test_what_a_key_could_not_be_used_for_is_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "helper"
    assert main(["keys", "create", "a", "--money", "5", "--model", f"{name}@v9", "--model", "b3:" + "0" * 64]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said == ["warning: without deploy.price in treadle.yaml every request with this key is refused"]
    assert main(["keys", "create", "b", "--model", f"{name}x@v9"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said == [f"warning: no model is called '{name}x' here; did you mean '{name}'?"]


def test_a_backup_has_the_hashes_and_what_was_used(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = told(capsys, "create", "billing")
    assert main(["backup", "kept.zip"]) == 0
    with Archive(project / "kept.zip") as archive:
        rows = [row for page in archive.lines("state.jsonl", 100) for row in page]
    assert [row[3] for row in rows if row[0] == "api_keys"] == [digest_of(made["key"])]
    assert main(["keys", "revoke", "billing"]) == 0
    (project / ".treadle" / "treadle.db").unlink()
    capsys.readouterr()
    assert main(["restore", "kept.zip", "--older"]) == 0
    capsys.readouterr()
    assert [each["state"] for each in told(capsys, "list")] == ["good"]
