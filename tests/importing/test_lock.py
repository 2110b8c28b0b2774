"""``treadle.lock`` pins what a commit was built with, merges cleanly, and is made current again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from importing.peers import call
from small_project import Project
from treadle.core.errors import UserError
from treadle.locking import THINGS, read_lock

Fresh = Callable[[], Project]
GIT = Path("git")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, base: Path, elsewhere: Path) -> Project:
    """A project in Git whose first champion was imported, with a lock, and whose second was trained."""
    from small_project import make_project

    project = make_project(tmp_path_factory.mktemp("locked"), base)
    project.edit("    - quality: {metric: log_likelihood, beats: base}\n", "")
    call(GIT, "init", "-q", "-b", "main", cwd=project.folder)
    (project.folder / ".gitignore").write_text(".treadle\n")
    project.json("import", "model", str(elsewhere))
    project.json("run")
    assert not (project.folder / "treadle.lock").exists()
    project.json("lock")
    commit(project, "first")
    project.json("run", "--next", "--set", "improve.train_from=base")
    return project


def commit(project: Project, message: str) -> None:
    call(GIT, "add", "-A", cwd=project.folder)
    call(GIT, "commit", "-q", "-m", message, cwd=project.folder)


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """A copy."""
    shutil.copytree(built.folder.parent, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy" / "project")


def pinned(project: Project) -> dict[str, str]:
    return {pin.thing: pin.digest for pin in read_lock(project.folder / "treadle.lock")}


@pytest.mark.slow
def test_a_turn_that_ended_well_keeps_it_up(project: Project) -> None:
    now = pinned(project)
    status = project.json("status")
    assert tuple(now) == THINGS
    assert (status["champion"]["ref"], status["champion"]["digest"]) == ("model/helper@v2", now["champion"])
    assert project.json("lock")["pins"][0] == {"thing": "champion", "ref": "model/helper@v2", "digest": now["champion"]}
    text = (project.folder / "treadle.lock").read_text()
    assert "model/helper@v1" in call(GIT, "show", "HEAD:treadle.lock", cwd=project.folder)
    project.json("run")
    assert (project.folder / "treadle.lock").read_text() == text


def test_checkout_makes_it_current_without_moving_the_champion(project: Project) -> None:
    later = pinned(project)
    call(GIT, "checkout", "-q", "treadle.lock", cwd=project.folder)
    before = pinned(project)
    assert before["champion"] != later["champion"]
    said = project.json("checkout")
    assert (said["version"], said["turn"]) == ("model/helper@v1", 3)
    assert project.json("status")["champion"]["ref"] == "model/helper@v2"
    assert project.json("checkout") == said
    result = project.call("run", "--json", check=None)
    assert "develop.train" not in result.stdout
    assert project.json("status")["turn"]["reasons"] == ["checkout of model@v1"]
    assert project.json("verify")["ok"]


def test_what_is_current_already_begins_nothing(project: Project) -> None:
    assert project.json("checkout")["turn"] is None
    assert project.json("status")["turn"]["number"] == 2


def test_what_the_store_lacks_is_named(project: Project) -> None:
    path = project.folder / "treadle.lock"
    path.write_text(path.read_text().replace(pinned(project)["dataset"], "b3:" + "0" * 64))
    said = project.call("checkout", check=1)
    assert "not in the store: dataset b3:00000000" in said.stderr


def test_objects_that_were_pulled_get_versions_here(project: Project, fresh: Fresh) -> None:
    other = fresh()
    shutil.copytree(project.folder / ".treadle" / "objects", other.folder / ".treadle" / "objects", dirs_exist_ok=True)
    said = other.json("checkout", str(project.folder / "treadle.lock"))
    assert (said["version"], said["turn"]) == ("model/helper@v1", 1)
    assert said["pins"][0]["digest"] == pinned(project)["champion"]
    assert other.json("verify")["ok"]


def test_different_things_merge_without_a_conflict(project: Project) -> None:
    folder, path = project.folder, project.folder / "treadle.lock"
    commit(project, "second")
    now = pinned(project)
    for branch, thing in (("mine", "dataset"), ("theirs", "release")):
        call(GIT, "checkout", "-q", "-b", branch, "main", cwd=folder)
        path.write_text(path.read_text().replace(now[thing], f"b3:{thing[0].encode().hex() * 32}"))
        commit(project, branch)
    call(GIT, "merge", "-q", "-m", "merged", "mine", cwd=folder)
    merged = pinned(project)
    assert {thing for thing in merged if merged[thing] != now[thing]} == {"dataset", "release"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("format: 1", "format: 2"), "reads format 1"),
        (lambda text: "<<<<<<< HEAD\n" + text, "merge conflict"),
        (lambda text: text + "model: nonsense\n", "line 11"),
        (lambda text: text + text, "line 14"),
        (lambda _: "# nothing\n", "pins nothing"),
        (lambda _: None, "treadle lock writes one"),
    ],
)
def test_a_file_that_is_none_is_refused(
    change: Callable[[str], Any], words: str, built: Project, tmp_path: Path
) -> None:
    path, text = tmp_path / "treadle.lock", change((built.folder / "treadle.lock").read_text())
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_lock(path)


def test_there_is_nothing_to_pin_before_the_first_turn(fresh: Fresh) -> None:
    assert "nothing to pin yet" in fresh().call("lock", check=2).stderr
