"""Collecting and preparing, killed at random moments and run again, give the digests that they give undisturbed.

Every other time the killed command begins with what an earlier one collected, from data that changed since. The two
commands run in forks of one process that has imported everything, so that the moments lie in the work.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from treadle.core.digest import blake3_file
from treadle.core.verify import verify
from treadle.project import open_project

pytest.importorskip("sqlalchemy")

STEPS = ("collect.gather", "prepare.clean", "prepare.assemble", "prepare.tokenize", "prepare.explore")
FORKING = Path(__file__).with_name("forking.py")
FILE = """\
name: helper
task: chat
seed: 17
collect:
  lake: lake
  sources:
    - type: files
      path: data/*
      fields: {{subject: customer, time: time}}
    - type: sql
      url: sqlite:///shop.db
      query: SELECT id, prompt, response, changed FROM notes
      key: id
      watermark: changed
      fields: {{prompt: prompt, response: response, time: changed}}
    - type: git
      url: code
prepare:
  steps: [normalize, gopher_quality, gopher_repetition, c4, fineweb, deduplicate, deduplicate_lines, deduplicate_near,
    redact]
develop:
  base_model: {base}
"""
SYLLABLES = ("ba", "den", "fol", "gar", "hin", "kel", "lom", "mar", "nes", "pol", "ral", "sin", "tor", "vel", "wen")


def prose(number: int) -> str:
    """Eight sentences of made words, which the filters let pass."""
    chance = random.Random(number)

    def word() -> str:
        return "".join(chance.choices(SYLLABLES, k=chance.randint(2, 3)))

    lines = [
        f"The {word()} of that {word()} will {word()} with a {word()} and have to be {word()} in the {word()}."
        for _ in range(8)
    ]
    lines[3] += f" Write to {word()}@example.org about it."
    return "\n".join(lines)


def row(number: int) -> str:
    text = prose(number if number % 9 else number + 1)  # now and then the same answer twice
    if number % 50 == 7:
        text = "Too short a text for the filters."
    said = [{"role": "user", "content": f"How, case {number}?"}, {"role": "assistant", "content": text}]
    return json.dumps({"messages": said, "customer": f"customer-{number % 7}", "time": f"2026-01-{number % 28 + 1:02}"})


def write_data(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "chats.jsonl").write_text("\n".join(map(row, range(300))) + "\nbroken\n")
    (folder / "data" / "more.jsonl").write_text("\n".join(map(row, range(300, 400))))
    with zipfile.ZipFile(folder / "data" / "pack.zip", "w") as archive:
        for number in range(30):
            archive.writestr(zipfile.ZipInfo(f"{number}.html"), f"<h1>Note</h1><p>{prose(1000 + number)}</p>")
    sql(folder, "CREATE TABLE notes (id INTEGER PRIMARY KEY, prompt TEXT, response TEXT, changed TEXT)")
    for number in range(40):
        sql(
            folder,
            "INSERT INTO notes VALUES (?, 'What now?', ?, ?)",
            number,
            prose(2000 + number),
            f"2026-02-{number % 28 + 1:02}",
        )
    (folder / "code").mkdir()
    git(folder, "init", "-q", "-b", "main")
    for number in range(10):
        (folder / "code" / f"{number}.md").write_text(prose(3000 + number))
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")


def change_data(folder: Path) -> None:
    (folder / "data" / "more.jsonl").write_text("\n".join(map(row, range(310, 420))))
    (folder / "data" / "new.md").write_text(prose(4000))
    sql(folder, "UPDATE notes SET response = ?, changed = '2026-05-01' WHERE id = 3", prose(4001))
    sql(folder, "DELETE FROM notes WHERE id = 4")
    (folder / "code" / "3.md").write_text(prose(4003))
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "two")


def sql(folder: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(folder / "shop.db")) as connection, connection:
        connection.execute(statement, values)


def git(folder: Path, *arguments: str) -> None:
    date = "2026-03-01T10:00:00Z"
    who = {"NAME": "a", "EMAIL": "a@example.org", "DATE": date}
    environment = {f"GIT_{role}_{name}": value for role in ("AUTHOR", "COMMITTER") for name, value in who.items()}
    subprocess.run(
        ["git", "-C", str(folder / "code"), *arguments],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )


@dataclass(frozen=True)
class Forking:
    """Runs ``treadle collect`` or ``prepare`` in forks."""

    process: subprocess.Popen[str]
    command: str

    def run(self, folder: Path, kill_after: float | None = None) -> int:
        """The exit code; it and all it started are killed after so many seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{self.command} {folder}\n")
        self.process.stdin.flush()
        number = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with suppress(ProcessLookupError):  # it has come to its end
                os.killpg(number, signal.SIGKILL)
        return int(self.process.stdout.readline())


@contextmanager
def forking(out: Path, command: str) -> Iterator[Forking]:
    with out.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, str(FORKING)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
        )
    with process:
        yield Forking(process, command)


def results(folder: Path) -> dict[str, Any]:
    """What came out: the corpus, everything that was prepared, and the lake."""
    with open_project(folder, ()) as project:
        runs, workspace = project.record.runs, project.record.workspace
        with workspace.exclusive():
            assert runs.find(status="running") == []
            assert verify(workspace).problems == ()
        made: dict[str, Any] = {}
        for step in STEPS:
            for run in runs.find(step=step, status="done", limit=1):
                made[step] = run.outputs
    lake = {path.relative_to(folder).as_posix(): blake3_file(path) for path in folder.glob("lake/**/*.parquet")}
    return {**made, "lake": lake}


@dataclass(frozen=True)
class Undisturbed:
    """Projects on disk, before anything ran and after, and what came out of the first data and of the changed."""

    fresh: Path
    ready: Path
    first: dict[str, Any]
    changed: dict[str, Any]
    seconds: float


def undisturbed(root: Path, base: Path, runner: Forking) -> Undisturbed:
    fresh, ready = root / "fresh", root / "ready"
    fresh.mkdir()
    write_data(fresh)
    (fresh / "treadle.yaml").write_text(FILE.format(base=base))
    with open_project(fresh, ()):  # makes the keys, which all copies share
        pass
    shutil.copytree(fresh, ready, symlinks=True)
    began = time.monotonic()
    assert runner.run(ready) == 0
    seconds = time.monotonic() - began
    first = results(ready)
    scratch = root / "scratch"
    shutil.copytree(fresh, scratch, symlinks=True)
    change_data(scratch)
    assert runner.run(scratch) == 0
    changed = results(scratch)
    assert changed["collect.gather"] != first["collect.gather"]
    return Undisturbed(fresh, ready, first, changed, seconds)


def kill_often(command: str, times: int, seed: int, root: Path, base: Path) -> None:
    chance = random.Random(seed)
    with forking(root / "said", command) as runner:
        known = undisturbed(root, base, runner)
        assert ("prepare.assemble" in known.first) is (command == "prepare")
        number = killed = 0
        while killed < times:
            number += 1
            following = number % 2 == 1
            project = root / f"killed-{number}"
            shutil.copytree(known.ready if following else known.fresh, project, symlinks=True)
            if following:
                change_data(project)
            killed += runner.run(project, kill_after=chance.uniform(0, known.seconds)) == -signal.SIGKILL
            assert runner.run(project) == 0, (root / "said").read_text()[-3000:]
            assert results(project) == (known.changed if following else known.first)
            shutil.rmtree(project)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    kill_often("collect", 2, 1, tmp_path, Path("smollm2-135m-instruct"))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_killed_at_fifty_random_moments(base: Path, tmp_path: Path, part: int) -> None:
    kill_often("collect" if part == 0 else "prepare", 10, 100 + part, tmp_path, base)
