"""A small project in which nothing has run, and a model that somebody trained elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from small_project import Project, make_project
from tiny_models import write_model


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama with random weights."""
    return write_model(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same kind, as somebody might have trained it, with a model card."""
    folder = write_model(tmp_path_factory.mktemp("elsewhere") / "theirs", seed=5)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA model.\n")
    return folder


@pytest.fixture
def fresh(tmp_path: Path, base: Path) -> Callable[[], Project]:
    """Makes projects in which nothing has run, and whose gates let any model through."""
    made = 0

    def make() -> Project:
        nonlocal made
        made += 1
        project = make_project(tmp_path / f"fresh-{made}", base)
        project.edit("    - quality: {metric: log_likelihood, beats: base}\n", "")
        return project

    return make
