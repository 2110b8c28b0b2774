"""A command that was forked from the process with everything loaded is the command that people start."""

from __future__ import annotations

import os
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
