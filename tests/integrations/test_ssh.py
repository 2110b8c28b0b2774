"""A step on a second host by a real sshd: only what is missing moves, and a host that is gone is told in one line."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import second_host
from distant_step import join
from second_host import SecondHost
from small_project import Project, make_project
from tiny_models import write_model
from treadle.core.artifacts import Artifact
from treadle.core.cipher import Cipher
from treadle.core.driver import Driver
from treadle.core.errors import UserError
from treadle.core.plugins import load
from treadle.core.store import Store
from treadle.core.workspace import Workspace
from treadle.integrations.ssh import Ssh
from treadle.project import open_project


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondHost]:
    found = second_host.start(tmp_path_factory.mktemp("second") / "host")
    yield found
    found.end()


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path / "here") as opened, opened.exclusive():
        yield opened


def _driver(workspace: Workspace, place: Any, folder: Path) -> Driver:
    driver = Driver(workspace.runs, folder, seed=3)
    driver.places["develop.on"] = place
    return driver


def _text(workspace: Workspace, text: str) -> Artifact:
    folder = workspace.store.new_folder()
    (folder / "text").write_text(text)
    return Artifact(workspace.store.put(folder), workspace.store)


def test_the_same_digest_as_here_and_only_what_is_missing_moves(
    workspace: Workspace, host: SecondHost, tmp_path: Path
) -> None:
    there = load("treadle.trainers", "ssh").value(**host.place(folder=str(tmp_path / "there")))
    inputs = _text(workspace, "a"), (_text(workspace, "b"), _text(workspace, "c"))
    made = _driver(workspace, there, tmp_path).run(join, *inputs, word="x")
    assert (made.path() / "text").read_text() == "a b c x 3"
    run = workspace.runs.find(step="distant.join")[0]
    assert run.status == "done"
    assert run.metrics == {"parts": 3.0, "objects_moved": 2.0 * 4}
    assert [point["values"] for point in workspace.journal.find_all("metrics", run.id)] == [{"loss": 0.5}]
    assert run.facts["tags"] == {"on": "ssh second"}
    # One more file: what was there stays there, and what is erased here goes there as well.
    more = _driver(workspace, there, tmp_path).run(join, inputs[0], (*inputs[1], _text(workspace, "d")), word="x")
    assert workspace.runs.find(step="distant.join")[0].metrics["objects_moved"] == 2.0 * 2
    (own,) = (tmp_path / "there").iterdir()
    distant = Store(own)
    assert distant.has(inputs[0].digest)
    workspace.store.delete({entry.digest for entry in inputs[0].entries()})
    _driver(workspace, there, tmp_path).run(join, more, (), word="y")
    assert not distant.has(inputs[0].digest)
    # Here it comes to the same.
    with Workspace(tmp_path / "other") as other, other.exclusive():
        texts = [_text(other, letter) for letter in "abc"]
        again = _driver(other, None, tmp_path).run(join, texts[0], tuple(texts[1:]), word="x")
        assert again.digest == made.digest


def test_what_goes_wrong_is_one_line(workspace: Workspace, host: SecondHost, tmp_path: Path) -> None:
    text = _text(workspace, "a")

    def message(word: str = "x", **more: str) -> str:
        with pytest.raises(UserError) as caught:
            _driver(workspace, Ssh(**host.place(**more)), tmp_path).run(join, text, (), word=word)
        assert "\n" not in str(caught.value)
        assert workspace.runs.find(step="distant.join")[0].status == "failed"
        return str(caught.value)

    assert message("refuse") == "word: refuse is not for us; take another"
    assert "second is gone or cannot be reached (ssh ended with 127" in message(python="/nowhere/python")
    assert "Could not resolve hostname" in message(host="nowhere.invalid")
    unknown = tmp_path / "unknown"
    unknown.write_text(Path(host.config).read_text().replace("/known", "/nobody"))
    assert "Host key verification failed" in message(config=str(unknown))
    with pytest.raises(UserError, match="expected a name as ssh takes it"):
        Ssh("-oProxyCommand=touch")
    with (
        Workspace(tmp_path / "sealed", cipher=Cipher([b"k" * 32])) as sealed,
        sealed.exclusive(),
        pytest.raises(UserError, match="the store is encrypted, and another machine's copy would not be"),
    ):
        _driver(sealed, Ssh(**host.place()), tmp_path).run(join, _text(sealed, "a"), (), word="x")


def test_a_host_that_goes_away_fails_the_run(workspace: Workspace, host: SecondHost, tmp_path: Path) -> None:
    folder = tmp_path / "there"

    def kill() -> None:
        until = time.monotonic() + 30
        while not (found := list(folder.glob("*/waits"))) and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.1)
        os.kill(int(found[0].read_text()), signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    place = Ssh(**host.place(folder=str(folder)))
    with pytest.raises(UserError, match="second is gone or cannot be reached"):
        _driver(workspace, place, tmp_path).run(join, _text(workspace, "a"), (), word="wait")
    killing.join()
    assert workspace.runs.find(step="distant.join")[0].status == "failed"


@pytest.mark.slow
def test_a_model_trained_there_is_that_of_here(
    host: SecondHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    base = write_model(tmp_path / "base")

    def trained(project: Project) -> tuple[str, Any]:
        project.call("develop")
        with open_project(project.folder) as opened:
            (run,) = opened.record.runs.find(step="develop.train", status="done")
            return run.outputs["model"], run.facts.get("tags", {})

    here = trained(make_project(tmp_path / "one", base))
    other = make_project(tmp_path / "two", base)
    settings = ", ".join(f"{name}: {value}" for name, value in host.place().items())
    other.edit("develop:\n", f"develop:\n  on: {{ssh: {{{settings}}}}}\n")
    there = trained(other)
    assert there[0] == here[0]
    assert (here[1], there[1]) == ({}, {"on": "ssh second"})
