"""``treadle watch`` killed at random over two turns: it goes on, ends where it would have, and doubles nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from small_project import Project
from treadle.project import open_project
from treadle.record.interaction import Interaction
from treadle.stages.improve import give_feedback

ANSWERS = ("Under the stairs.", "In the second drawer.", "Behind the old clock.", "With the caretaker.", "At the gate.")


def corrections(project: Project) -> None:
    """The same interactions, with the same ids, wherever this is called; and what people said of them."""
    with open_project(project.folder) as opened:
        record = opened.record
        release = record.versions.served()
        assert release
        for number, answer in enumerate(ANSWERS):
            question = {"role": "user", "content": f"Where is the key of cupboard {number}?"}
            identifier = f"int-01M8400000000000000000000{number}"
            row = Interaction(
                identifier, "req", "2026-11-23T00:00:00.000Z", release, "helper@v1", "/v1/chat/completions", "ok",
                store=True, messages=(question,), answer="I do not know.",
            )  # fmt: skip
            record.recorder.interaction(row)
            give_feedback(record, identifier, "correction", None, answer, None, f"user-{number}")


def watch_to_the_end(project: Project, stop_at: Callable[[], float | None]) -> None:
    """Call ``watch --once`` until a whole pass found nothing to do; kill it when ``stop_at`` says."""
    while True:
        running = project.start("watch", "--once", "--json")
        seconds = stop_at()
        try:
            said, _ = running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
            time.sleep(0.2)  # its workers notice that their parent is gone
            continue
        assert running.returncode == 0, said
        if '"did": []' in said:
            return


def ended(project: Project) -> dict[str, Any]:
    """What must be the same, however it came about."""
    runs = project.json("runs", "--limit", "1000")
    assert {run["status"] for run in runs} <= {"done", "crashed"}
    done = [(run["step"], str(run["parameters"]), str(run["inputs"])) for run in runs if run["status"] == "done"]
    assert len(done) == len(set(done))
    # A harvest is made again when its turn had not begun; whatever a turn took is done once.
    steps = sorted(step for step, _, _ in done if step != "improve.harvest")
    assert project.json("verify")["ok"]
    with open_project(project.folder) as opened:
        record = opened.record
        turns = [(turn.number, turn.reasons, turn.outcome, turn.candidate) for turn in record.turns.all()]
        moves = [(move["version"], move["reason"]) for move in record.versions.history("champion")]
        begun = len(list(record.ledger.rows("turn.begun")))
        finished = len(list(record.ledger.rows("turn.ended")))
        alerts = [row.body["of"] for row in record.ledger.rows("alert")]
        versions = [version.digest for version in record.versions.all("model")]
    assert begun == finished == len(turns)
    return {"turns": turns, "moves": moves, "alerts": alerts, "versions": versions, "steps": steps}


def two_turns(project: Project, stop_at: Callable[[], float | None]) -> dict[str, Any]:
    watch_to_the_end(project, stop_at)
    corrections(project)
    watch_to_the_end(project, stop_at)
    return ended(project)


@pytest.fixture(scope="module")
def undisturbed(built: tuple[Project, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Where two turns end when nobody is killed."""
    import shutil

    folder = tmp_path_factory.mktemp("undisturbed") / "copy"
    folder.mkdir()
    shutil.copytree(built[0].folder.parent / "data", folder / "data")
    (folder / "project").mkdir()
    shutil.copyfile(built[0].file, folder / "project" / "treadle.yaml")
    return two_turns(Project(folder / "project"), lambda: None)


@pytest.mark.timeout(1500)
@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, 30])
def test_the_end_is_the_same(kills: int, undisturbed: dict[str, Any], fresh: Callable[[], Project]) -> None:
    draw = random.Random(kills)
    left = kills

    def moment() -> float | None:
        nonlocal left
        if left == 0:
            return None
        left -= 1
        return draw.uniform(0.3, 9.0)

    project = fresh()
    assert two_turns(project, moment) == undisturbed
