"""Killed at any moment, run again: it goes on, nothing is lost or doubled, no run stays ``running``."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from small_project import Project

MOMENTS = 4


def test_kill_and_run_again(fresh: Callable[[], Project], built: tuple[Project, Any]) -> None:
    project = fresh()
    random.seed(20)
    for _ in range(MOMENTS):
        running = project.start("run")
        try:
            running.wait(timeout=random.uniform(0.1, 5.0))
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        time.sleep(0.2)  # workers notice that their parent is gone
    assert project.json("run")["ok"]
    runs = project.json("runs")
    assert {run["status"] for run in runs} <= {"done", "crashed"}
    done = [(run["step"], str(run["parameters"]), str(run["inputs"])) for run in runs if run["status"] == "done"]
    assert len(done) == len(set(done))
    assert project.json("verify")["ok"]
    expected = built[0].json("status")["champion"]["digest"]
    assert project.json("status")["champion"]["digest"] == expected


def test_ctrl_c_says_so_and_leaves_the_project_usable(fresh: Callable[[], Project]) -> None:
    project = fresh()
    running = project.start("run")
    time.sleep(1.5)
    os.killpg(running.pid, signal.SIGINT)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "interrupted" in said
    assert project.json("verify")["ok"]
    assert "running" not in {run["status"] for run in project.json("runs")}
