"""The whole cycle over an encrypted store: the same digests, nothing to be read without the key, keys that change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from small_project import SUBJECT, Project

TEXT = b"open its menu and choose"
KEY, NEW = "ab" * 32, "cd" * 32


def encrypted(project: Project) -> Project:
    project.edit("seed: 17\n", "seed: 17\nencryption: ${env:HELPER_KEY}\n")
    return project


def at_rest(project: Project) -> bytes:
    store = project.folder / ".treadle"
    return b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file() and "journal" not in path.parts)


@pytest.mark.slow
def test_a_project_is_encrypted_and_goes_on(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    encrypted(project)
    monkeypatch.delenv("HELPER_KEY", raising=False)
    said = project.call("verify", check=2).stderr
    assert said.count("\n") == 1
    assert "HELPER_KEY of the environment is not set" in said
    monkeypatch.setenv("HELPER_KEY", KEY)
    done = project.json("encrypt")
    assert done["ok"]
    assert done["objects"] > 50
    assert TEXT not in at_rest(project)
    plan = project.json("plan")
    assert {step["status"] for stage in plan["stages"] for step in stage["steps"]} == {"cached"}
    project.call("run", "--set", "develop.evaluate.max_tokens=9")  # answers, optimizes, serves, judges
    assert project.json("verify")["ok"]
    assert TEXT not in at_rest(project)
    assert "treadle export folder b3:" in project.json("prepare")["report"]
    project.call("export", "folder", "@champion", "--out", str(tmp_path / "champion"))
    assert (tmp_path / "champion" / "config.json").exists()
    monkeypatch.setenv("HELPER_KEY", f"{NEW} {KEY}")
    assert project.json("encrypt")["objects"] > done["objects"]
    monkeypatch.setenv("HELPER_KEY", KEY)
    said = project.call("status", check=2).stderr
    assert said.count("\n") == 1
    assert "which `encryption` in treadle.yaml does not give" in said
    monkeypatch.setenv("HELPER_KEY", NEW)
    assert project.json("encrypt", "--off")["key"] is None
    project.edit("encryption: ${env:HELPER_KEY}\n", "")
    assert project.json("verify")["ok"]


@pytest.mark.slow
def test_a_whole_turn_and_an_erasure(fresh: Callable[[], Project], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELPER_KEY", KEY)
    project = encrypted(fresh())
    assert project.json("run")["ok"]
    assert TEXT not in at_rest(project)
    assert not (project.folder / ".treadle" / "views").exists()
    project.call("forget", SUBJECT, timeout=600)
    assert project.json("verify")["ok"]
    assert TEXT not in at_rest(project)
