"""Rows for a sink put together by run, for trackers whose clients open one run at a time and write what they are told
into files.

A file is named after the rows of the ledger that it holds, and gets its name when it is whole. So rows that are given
again are found by the names of the files that are there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from treadle.core.fact import Row
from treadle.core.sink import SentRun, View

_SPAN = re.compile(r"-(\d+)-(\d+)(?:\.zip)?\Z")


@dataclass(frozen=True, slots=True)
class Point:
    """What was logged at once. ``place`` counts them from 0 in the run; ``moment`` is in seconds since 1970."""

    place: int
    step: int | None
    moment: float
    values: dict[str, float]


@dataclass
class Piece:
    """What a batch says of one run. ``first`` and ``last`` are rows of the ledger; ``finished`` where the end is among
    them."""

    run: SentRun
    first: int
    last: int
    finished: bool = False
    points: list[Point] = field(default_factory=list)

    @property
    def span(self) -> str:
        """The end of a name that says which rows a file holds."""
        return f"{self.first}-{self.last}"

    def facts(self) -> dict[str, Any]:
        """What is known of the run besides parameters and metrics."""
        run = self.run
        known = {"run": run.id, "step": run.step, "kind": run.kind, "seed": run.seed, "commit": run.commit}
        known |= {"turn": run.turn, **{f"inputs.{name}": digest for name, digest in run.inputs.items()}}
        known |= {f"outputs.{name}": digest for name, digest in run.outputs.items()}
        return {f"treadle.{name}": value for name, value in known.items() if value is not None}

    def labels(self) -> list[str]:
        """Tags as one text each."""
        return [f"{name}={value}" for name, value in self.run.tags.items()]

    def final(self, view: View) -> dict[str, float]:
        """The run's final numbers that are not what was logged last."""
        logged: dict[str, float] = {}
        for point in view.points(self.run.id):
            logged.update((name, float(value)) for name, value in point["values"].items())
        return {name: value for name, value in self.run.metrics.items() if logged.get(name) != value}


def pieces(view: View, batch: Sequence[Row], there: Iterable[tuple[str, int, int]] = ()) -> Iterator[Piece]:
    """What a batch says of each run, in order. ``there`` are run, first and last row of the files that hold some of
    them already."""
    held: dict[str, list[tuple[int, int]]] = {}
    for run, first, last in there:
        held.setdefault(run, []).append((first, last))
    rows: dict[str, list[Row]] = {}
    for row in batch:
        if row.kind == "points" or row.kind.startswith("run."):
            rows.setdefault(str(row.body["run"]), []).append(row)
    for run, given in rows.items():
        new = [row for row in given if not any(first <= row.seq <= last for first, last in held.get(run, ()))]
        known = view.run(run) if new else None
        if known is not None:
            yield _piece(view, known, new)


def _piece(view: View, run: SentRun, rows: list[Row]) -> Piece:
    piece = Piece(run, rows[0].seq, rows[-1].seq, any(row.kind == "run.finished" for row in rows))
    before: dict[int, int] = {}
    for row in rows:
        if row.kind == "points":
            start = before.setdefault(row.seq, view.points_before(run.id, row.seq)) + row.body["first"]
            for place, point in enumerate(row.body["points"], start):
                values = {name: float(value) for name, value in point["values"].items()}
                moment = datetime.fromisoformat(point["time"]).timestamp()
                piece.points.append(Point(place, point["step"], moment, values))
    return piece


@contextmanager
def scratch(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder to make a file in, gone when the block ends; with those of processes that were killed."""
    for left in parent.glob(f"{prefix}*"):
        owner = left.name[len(prefix) :]
        if owner.isdigit() and not _runs(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    folder = parent / f"{prefix}{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def span_of(name: str) -> tuple[int, int] | None:
    """The rows that a file holds, by its name; None where it is not one of ours."""
    found = _SPAN.search(name)
    return (int(found[1]), int(found[2])) if found else None
