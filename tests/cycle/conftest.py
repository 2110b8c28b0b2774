"""A whole project with a tiny random model, run once; each test gets a copy of it to do with as it likes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from small_project import Project, make_project
from tiny_models import write_model


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama with random weights."""
    return write_model(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Project, Any]:
    """The project after one turn, and what ``run --json`` said."""
    project = make_project(tmp_path_factory.mktemp("built"), base)
    return project, project.json("run")


@pytest.fixture
def project(built: tuple[Project, Any], tmp_path: Path) -> Project:
    """A copy of the built project."""
    shutil.copytree(built[0].folder.parent, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy" / "project")


@pytest.fixture
def fresh(tmp_path: Path, base: Path) -> Callable[[], Project]:
    """Makes projects in which nothing has run."""
    made = 0

    def make() -> Project:
        nonlocal made
        made += 1
        return make_project(tmp_path / f"fresh-{made}", base)

    return make
