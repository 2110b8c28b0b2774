"""Two projects that name the same store and ledger share one history, on either database."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from treadle.core.artifacts import Artifact
from treadle.core.driver import Driver
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.core.verify import verify
from treadle.project import open_project

FILE = """\
name: {name}
task: chat
store: ../shared
ledger: {ledger}
collect: {{sources: [{{type: files, path: chats.jsonl}}]}}
develop: {{base_model: none}}
"""


@step(version=1, name="tests.shared")
def make(*, text: str, run: Run) -> Artifact:
    with run.create(Artifact) as made:
        (made.path / "text.txt").write_text(text)
        return made.commit()


@pytest.fixture(params=["sqlite", "postgresql"])
def folders(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The folders of two projects, `left` and `right`."""
    ledger = "../shared/treadle.db"
    if request.param == "postgresql":
        monkeypatch.setenv("SHARED_LEDGER", request.getfixturevalue("postgresql").schema())
        ledger = "${env:SHARED_LEDGER}"
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "treadle.yaml").write_text(FILE.format(name=name, ledger=ledger))
    return tmp_path / "left", tmp_path / "right"


def test_runs_are_shared_and_versions_are_counted_per_project(folders: tuple[Path, Path]) -> None:
    for turn in range(2):
        for folder in folders:
            with open_project(folder) as project, project.record.workspace.exclusive():
                driver = Driver(project.record.workspace.runs, folder, seed=1)
                made = driver.run(make, text=f"text {turn}")
                versions = project.record.versions
                version = versions.register("model", made.digest, None) if folder is folders[0] else None
                if version is not None:
                    versions.point("champion", version, reason="better")
                if folder is folders[1]:  # the other one has made it
                    assert [result.status for _, results in driver.stages for result in results] == ["cached"]
                    assert versions.latest("model") is None
                    assert versions.resolve(f"model/left@v{turn + 1}").digest == made.digest
                    assert verify(project.record.workspace).ok


def test_one_waits_for_the_other(folders: tuple[Path, Path]) -> None:
    said: list[str] = []
    order: list[str] = []

    def wait() -> None:
        with open_project(folders[1]) as project, project.record.workspace.exclusive(said.append):
            order.append("right")

    with open_project(folders[0]) as project, project.record.workspace.exclusive():
        waiter = threading.Thread(target=wait)
        waiter.start()
        while not said:
            time.sleep(0.005)
        order.append("left")
    waiter.join(60)
    assert order == ["left", "right"]
    assert said[0].startswith("process ")
