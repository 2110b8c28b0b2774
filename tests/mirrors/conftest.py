"""A project without a model, and nothing that switches a mirror on."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from small_project import Project, make_project

_SWITCHES = re.compile(r"(?:MLFLOW|WANDB|COMET|OPENLINEAGE)_")


@pytest.fixture(autouse=True)
def off(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mirror is on by the environment that the tests run in."""
    for name in list(os.environ):
        if _SWITCHES.match(name):
            monkeypatch.delenv(name)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project in which nothing has run; its base model is never looked at."""
    return make_project(tmp_path, tmp_path / "base")


@pytest.fixture
def events(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Switches on the simplest mirror that there is: OpenLineage's events, in a file."""
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", "events.jsonl")
    return project.folder / "events.jsonl"
