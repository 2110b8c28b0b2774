"""Processes that log, put and alias in one project at once: what the tests start, and kill together.

    busy.py ROOT FOLDER     says `ready`, then what was acknowledged, a line each:

    start RUN               a run was begun
    point RUN STEP          a number was logged
    artifact RUN DIGEST     a file was stored and the run said so
    done RUN                a run was closed
    alias NUMBER            the champion was moved to a new version

The database is the one that WRITER_DATABASE names. Every line is one write to the standard output.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from treadle.core.artifacts import Artifact, Builder
from treadle.core.experiment import Experiment
from treadle.core.workspace import Workspace
from treadle.record.record import PROJECTIONS, Record


def said(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def begun(record: Record, folder: Path) -> Experiment:
    run = Experiment(
        record.runs, "busy", folder, params={"lr": 0.1}, tags={}, seed=1, resolve=lambda ref: (ref, "artifact")
    )
    said("start", run.id)
    return run


def log(record: Record, folder: Path) -> None:
    """Short runs, of which most are killed in the middle."""
    while True:
        run = begun(record, folder)
        for step in range(random.randint(1, 60)):
            run.log(step, loss=1 / (step + 1))
            said("point", run.id, step)
        run.finish()
        said("done", run.id)


def put(record: Record, folder: Path) -> None:
    """Files of some hundred kilobytes, several to an artifact."""
    run = begun(record, folder)
    place = folder / f"made-{os.getpid()}"
    place.mkdir()
    while True:
        for number in range(random.randint(1, 5)):
            (place / f"{number}.bin").write_bytes(os.urandom(random.choice((0, 100, 300_000))))
        made = run.artifact(place, kind="model", name="made")
        said("artifact", run.id, made.digest)


def alias(record: Record, folder: Path) -> None:
    """The champion moves to one new version after the other."""
    while True:
        with Builder(type("Made", (Artifact,), {"kind": "model"}), record.store) as builder:
            (builder.path / "weights").write_bytes(os.urandom(100))
            digest = builder.commit().digest
        version = record.versions.register("model", digest, None)
        record.versions.point("champion", version, reason="better")
        said("alias", version.number)


def child(work: Callable[[Record, Path], None], root: Path, folder: Path) -> None:
    try:
        with Workspace(root, os.environ.get("WRITER_DATABASE") or None, PROJECTIONS) as workspace:
            work(Record(workspace, "demo"), folder)
    except BaseException as error:
        os.write(2, f"{work.__name__}: {type(error).__name__} {error}\n".encode())
    os._exit(7)


if __name__ == "__main__":
    said("ready")
    for each in (log, log, put, alias):
        if not os.fork():
            child(each, Path(sys.argv[1]), Path(sys.argv[2]))
    time.sleep(600)
