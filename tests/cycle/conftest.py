"""A whole project with a tiny random model, run once; each test gets a copy of it to do with as it likes."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import containers
from made_once import made_once
from small_project import Project, make_project
from tiny_models import write_model


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama with random weights."""
    return made_once(tmp_path_factory, "tiny-base", write_model)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Project, Any]:
    """The project after one turn, and what ``run --json`` said."""

    def make(root: Path) -> None:
        said = make_project(root, base).call("run", "--json").stdout
        (root / "said.json").write_text(said)

    made = made_once(tmp_path_factory, "built-project", make)
    own = Path(shutil.copytree(made, tmp_path_factory.mktemp("built") / "own", symlinks=True))
    return Project(own / "project"), json.loads((own / "said.json").read_text())


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


@pytest.fixture(scope="session")
def image(built: tuple[Project, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of the built project's release, as target docker makes it; skips without podman."""
    containers.make_base_image()
    out = tmp_path_factory.mktemp("image") / "docker"
    project = built[0]
    said = project.json("render", "docker", "--out", str(out), "--with", "tool=podman", "--with", "wheels_only=true")
    containers.add_wheels(out)
    project.call("export", "folder", said["release"], "--out", str(out / "release"))
    build = shlex.split(project.json("apply", "docker", str(out), "--dry-run")["commands"][0])
    subprocess.run(build, cwd=out, check=True)
    name = build[build.index("--tag") + 1]
    yield name
    subprocess.run(["podman", "rmi", "--force", name], check=True)
