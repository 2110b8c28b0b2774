"""A command that was forked from the process with everything loaded is the command that people start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import command


@pytest.mark.parametrize("arguments", [("--version",), ("status", "--json"), ("nonsense",), ("init", "made")])
def test_it_says_and_does_what_the_command_does(arguments: tuple[str, ...], tmp_path: Path) -> None:
    said = []
    for name in ("alone", "forked"):
        folder = tmp_path / name / "here"
        folder.mkdir(parents=True)
        if name == "forked":
            done = command.run(*arguments, folder=folder)
        else:
            started = [sys.executable, "-m", "treadle", *arguments]
            done = subprocess.run(started, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
        text = (done.stdout + "\0" + done.stderr).replace(str(folder), "HERE")
        said.append((done.returncode, text, files))
    assert said[0] == said[1]


def test_it_sees_the_environment_it_is_given_and_ends_in_time(tmp_path: Path) -> None:
    given = {**os.environ, "COLUMNS": "60"}
    narrow, wide = (command.run("gc", "--help", environment=each).stdout for each in (given, dict(os.environ)))
    assert max(map(len, narrow.splitlines())) <= 60 < max(map(len, wide.splitlines()))
    with pytest.raises(subprocess.TimeoutExpired):
        command.run("doctor", folder=tmp_path, timeout=0.01)


def test_one_that_goes_on_has_a_group_of_its_own_and_can_be_ended(tmp_path: Path) -> None:
    command.run("init", "made", folder=tmp_path)
    for number, code in ((signal.SIGINT, 0), (signal.SIGKILL, -signal.SIGKILL)):
        running = command.start("console", "--port", "0", "--json", folder=tmp_path / "made")
        assert json.loads(running.stdout.readline())["url"]
        assert running.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.05)
        os.killpg(running.pid, number)
        assert running.communicate(timeout=30) == ("", None)
        assert running.returncode == code
