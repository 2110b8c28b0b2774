"""A person who asked to be forgotten is in no byte of the project and does not come back; ``verify`` knows why."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import treadle
from small_project import NAME, SUBJECT, Project
from treadle.core.driver import Silent
from treadle.erasing import forget
from treadle.project import open_project


def every_byte(folder: Path) -> bytes:
    """All files under a folder, and every text that is compressed inside Parquet files."""
    import pyarrow.parquet as pq

    parts = []
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            parts.append(data)
            if data[:4] == b"PAR1":
                parts.append(json.dumps(pq.read_table(path).to_pylist()).encode())
    return b"\n".join(parts).lower()


@pytest.mark.parametrize("subject", [SUBJECT, pytest.param(NAME, marks=pytest.mark.slow)])
def test_gone_from_every_byte(project: Project, subject: str) -> None:
    answer = project.json("ask", f"I am {NAME}: how do I clean my kettle?", "--user", SUBJECT)
    project.json("feedback", answer["id"], "--correction", f"Ask {NAME} or somebody.", "--user", SUBJECT)
    told = {"folder": project.folder, "tags": {"who": NAME}, "params": {"for": f"für {NAME}"}}
    with treadle.start_run("fit", system=None, capture=True, **told) as run:
        run.note(f"asked for by {NAME}\nand {SUBJECT}")
        sys.stdout.write(f"{NAME}, {SUBJECT}\n")
    planted = NAME.lower().encode()
    assert planted in every_byte(project.folder)
    before = project.json("status")["counts"]["documents"]
    with open_project(project.folder) as opened:  # the console's index knows them as well
        opened.record.interactions.catch_up()
    expected = project.json("forget", subject, "--dry-run")
    assert expected["documents"] >= 1
    assert not expected["done"]
    found = project.json("forget", subject, check=None)
    assert found["done"]
    assert (found["documents"], found["interactions"]) == (expected["documents"], expected["interactions"])
    left = every_byte(project.folder)
    if subject == NAME:
        assert planted not in left
    assert SUBJECT.encode() not in left
    collected = project.json("collect")
    assert collected["dropped"]["suppress.erased"] == found["documents"]
    verified = project.json("verify")
    assert verified["ok"]
    assert verified["checked"]["erased"] == found["objects"] > 0
    assert project.json("status")["counts"]["documents"] < before
    again = project.json("forget", subject, check=None)
    assert again["documents"] == again["interactions"] == 0


def test_deleting_by_hand_is_a_problem(project: Project) -> None:
    model = project.json("status")["champion"]["digest"]
    path = project.folder / ".treadle" / "objects" / model[3:5] / model[5:]
    path.unlink()
    verified = project.json("verify", check=1)
    assert [problem["ref"] for problem in verified["problems"]] == [model]


@pytest.mark.parametrize("phase", [pytest.param("requested", marks=pytest.mark.slow), "deleting"])
def test_an_interrupted_erasure_is_finished_by_the_same_command(project: Project, phase: str) -> None:
    first = project.start("forget", SUBJECT)
    while phase not in {reached for _, reached in _phases(project)}:
        assert first.poll() is None
    first.kill()
    first.communicate()
    if "done" in {reached for _, reached in _phases(project)}:
        return  # it was quicker than we are
    assert any("erasure" in line for line in project.json("status")["pending"])
    assert project.json("forget", SUBJECT, check=None)["done"]
    assert project.json("status")["pending"] == []
    assert project.json("verify")["ok"]
    assert SUBJECT.encode() not in every_byte(project.folder)
    assert NAME.lower().encode() in every_byte(project.folder)  # somebody else's row names her; that is not hers
    assert len({request for request, _ in _phases(project)}) == 1


class Interrupted(Silent):
    """Ends the command where the rebuild begins."""

    def stage(self, name: str) -> None:
        raise KeyboardInterrupt


def test_what_an_interrupted_erasure_took_counts_as_gone(project: Project) -> None:
    project.json("ask", "how do I clean my kettle?", "--user", SUBJECT)
    answer = project.json("ask", "and my lamp?", "--user", SUBJECT)
    project.json("feedback", answer["id"], "--correction", "Ask somebody.", "--user", SUBJECT)
    with open_project(project.folder) as opened, pytest.raises(KeyboardInterrupt):
        forget(opened, SUBJECT, listener=Interrupted())
    for told in (project.json("forget", SUBJECT, "--dry-run"), project.json("forget", SUBJECT, check=None)):
        assert (told["documents"], told["interactions"], told["feedback"]) == (7, 2, 1)
    again = project.json("forget", SUBJECT, "--dry-run")
    assert (again["request"], again["documents"], again["interactions"], again["feedback"]) == ("", 0, 0, 0)


@pytest.mark.parametrize(
    "stage", ["collect", "prepare", *(pytest.param(stage, marks=pytest.mark.slow) for stage in ("develop", "track"))]
)
def test_no_more_is_rebuilt_than_there_was(fresh: Callable[[], Project], stage: str) -> None:
    project = fresh()
    project.json(stage)
    before = _steps(project)
    found = project.json("forget", SUBJECT)
    assert (found["documents"], found["rebuilt"], found["done"]) == (7, True, True)
    after = _steps(project)
    assert set(after) == set(before)
    assert SUBJECT.encode() not in every_byte(project.folder)
    assert project.json("verify")["ok"]
    project.json(stage)
    assert _steps(project) == after  # what was rebuilt is remembered


def _steps(project: Project) -> list[str]:
    """Of each run."""
    with open_project(project.folder) as opened:
        return [run.step for run in opened.record.runs.find()]


def _phases(project: Project) -> list[tuple[str, str]]:
    connection = sqlite3.connect(f"file:{project.folder}/.treadle/treadle.db?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT body FROM ledger WHERE kind = 'erasure'").fetchall()
    finally:
        connection.close()
    return [(json.loads(body)["request"], json.loads(body)["phase"]) for (body,) in rows]


def test_a_restore_that_repeats_an_erasure_leaves_no_champion_that_knew_them(project: Project, tmp_path: Path) -> None:
    project.json("backup", str(tmp_path / "b.zip"), "--objects")
    request = project.json("forget", SUBJECT, "--no-rebuild")["request"]
    restored = project.json("restore", str(tmp_path / "b.zip"), "--older")
    assert restored["erased_again"] == [request]
    assert project.json("status")["champion"] is None
    assert project.json("verify")["ok"]
