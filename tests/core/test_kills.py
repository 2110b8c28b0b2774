"""Killed at random moments while several processes log, put and move aliases: nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from treadle.core.verify import verify
from treadle.record.record import PROJECTIONS, Record

from .conftest import Place

BUSY = Path(__file__).with_name("busy.py")


def killed(place: Place, folder: Path, seconds: float, until: tuple[bytes, ...] = ()) -> list[str]:
    """Let the processes work for so long after they began to, or after they said all of ``until``, and kill them all
    at once; what they had acknowledged."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        command = [sys.executable, str(BUSY), str(place.root), str(folder)]
        environment = {**os.environ, "WRITER_DATABASE": place.database or ""}
        process = subprocess.Popen(command, stdout=out, stderr=error, env=environment, start_new_session=True)
        while not all(word in os.pread(out.fileno(), 1 << 20, 0) for word in (b"ready", *until)):
            assert process.poll() is None, error.read()
            time.sleep(0.002)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        while _in_group(process.pid):  # the children are the kernel's to bury
            time.sleep(0.002)
        assert os.pread(error.fileno(), 1000, 0) == b""
        out.seek(0)
        text = out.read()
    return text[: text.rfind("\n") + 1].splitlines()[1:]


def _in_group(number: int) -> bool:
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True


def check(place: Place, said: list[str]) -> None:
    """Everything is as it was acknowledged, and no run goes on."""
    told = [line.split() for line in said]
    with place.open(PROJECTIONS) as workspace:
        assert verify(workspace).problems == ()
        record = Record(workspace, "demo")
        record.runs.sweep()
        assert record.runs.find(status="running") == []
        for what, *rest in told:
            if what in ("start", "done"):
                run = record.runs.get(rest[0])
                assert run is not None
                assert what == "start" or run.status == "done"
            elif what == "artifact":
                made = "SELECT 1 FROM artifacts WHERE run = ? AND digest = ?"
                assert workspace.database.query(made, rest)
                workspace.store.view(rest[1])
        moved = {row.body["number"] for row in record.ledger.rows("alias") if row.body["alias"] == "champion"}
        assert {int(rest[0]) for what, *rest in told if what == "alias"} <= moved
        champion = record.versions.alias("model", "champion")
        assert champion is None if not moved else champion is not None and champion.number == max(moved)
        points = Counter((row["id"], row["step"]) for row in workspace.journal.read("metrics"))
        assert {(rest[0], int(rest[1])) for what, *rest in told if what == "point"} <= points.keys()
        assert max(points.values(), default=1) == 1
        with workspace.exclusive():  # what the next command does first
            own = workspace.store._workplace._own
            assert [path for path in (place.root / "tmp").glob("*") if own is None or path != own[0]] == []
        assert verify(workspace).problems == ()


def kill_often(place: Place, folder: Path, times: int, seed: int) -> Counter[str]:
    """How much of each kind was acknowledged in all."""
    chance, told = random.Random(seed), Counter[str]()
    everything: list[str] = []
    for number in range(times):
        # Half of the time the moment falls into the opening of the project and the first deeds.
        until = () if number % 2 else (b"point", b"artifact", b"alias")
        said = killed(place, folder, chance.random() * 0.4, until)
        told.update(line.split()[0] for line in said)
        everything += said
        check(place, everything)
    return told


def test_killed_at_random_moments(place: Place, tmp_path: Path) -> None:
    told = kill_often(place, tmp_path, 2, seed=1)
    assert told.keys() >= {"start", "point", "artifact", "alias"}


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("part", range(10))
def test_killed_at_two_hundred_random_moments(place: Place, tmp_path: Path, part: int) -> None:
    """Twenty in each record, so that looking at everything stays quick."""
    told = kill_often(place, tmp_path, 20, seed=100 + part)
    assert told.keys() == {"start", "point", "artifact", "alias", "done"}
