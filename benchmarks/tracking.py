"""Tracking, side by side with MLflow on its SQLite backend: ``python -m benchmarks.tracking [--quick]``.

The same numbers go into both, in turn, in files on the same disk. Ours is what ``treadle.start_run`` gives, MLflow's is
its Python client over ``sqlite:///``, without a server in between, in an environment of its own
(``.venv-peers/mlflow``, made when it is missing).

``log_metric``: one number a call. ``log_batch``: 1,000 a call. ``search``: among 10,000 runs by metric, setting and
tag, in the order of a metric, the first 1,000, with the settings and metrics of each. ``open_run``: the last of 1,000
runs with its settings, tags, metrics and whole history; ``get_run``: without the history.

Durability. Ours: once ``log`` returns, the point survives the death of the process (``kill -9``), and a loss of power
costs at most the last second. MLflow: each call is an SQLite transaction with the settings SQLite begins with, synced
to the disk. ``log_metric_synced`` and ``log_batch_synced`` are the same ratios with ours waiting for the disk in each
call as well. Runs that are searched and opened are written into MLflow through its own models in large transactions,
because its API would take an hour for them; ours are ledger rows and journal rows as runs leave them.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import treadle
from benchmarks.peers import PEERS, environment
from benchmarks.report import print_report, versions
from treadle.core import run_facts
from treadle.core.experiment import KIND, STEP, Experiment
from treadle.core.fact import Fact, now
from treadle.core.identifiers import new_id
from treadle.core.journal import SEAL_ROWS
from treadle.core.run import METRICS
from treadle.core.texts import Texts
from treadle.record.record import Record
from treadle.record.run_filter import parse, parse_field
from treadle.record.run_sql import Search, search
from treadle.record.run_view import whole
from treadle.tracking import open_record

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mlflow-skinny==3.17.2", "sqlalchemy>=2", "alembic", "pandas", "numpy")
LIMIT = 1_000
BATCH = 1_000
WHERE = "metrics.loss < 2 and params.optimizer = 'adamw' and tags.team = 'a'"


@dataclass(frozen=True)
class Size:
    """How much of each; ``rounds`` in turn."""

    rounds: int
    singles: int
    peer_singles: int
    batches: int
    peer_batches: int
    searched: int
    opened: int


FULL = Size(9, 5_000, 40, 20, 3, 10_000, 1_000)
QUICK = Size(3, 3_000, 15, 10, 2, 10_000, 300)


def main() -> None:
    """Measure in turn and print."""
    parser = argparse.ArgumentParser(description="Tracking, beside MLflow.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, within 60 seconds")
    size = QUICK if parser.parse_args().quick else FULL
    python = peer_environment()
    folder = Path(tempfile.mkdtemp(prefix="tracking-", dir=PEERS))
    try:
        print_report("tracking", *measure(folder, python, size))
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, python: Path, size: Size) -> tuple[dict[str, float], dict[str, Any]]:
    """Ratios, and the figures behind them."""
    ours: dict[str, list[float]] = {}
    theirs: dict[str, list[float]] = {}
    peer = Pipe(python, folder)
    with treadle.start_run("log", folder=folder / "logged", system=None) as run:
        for _ in range(size.rounds):
            theirs.setdefault("log_metric", []).append(peer.ask("log_metric", size.peer_singles) / size.peer_singles)
            ours.setdefault("log_metric", []).append(timed(lambda: singles(run, size.singles)) / size.singles)
            ours.setdefault("log_metric_synced", []).append(timed(lambda: singles(run, 100, sync=True)) / 100)
            theirs.setdefault("log_batch", []).append(peer.ask("log_batch", size.peer_batches) / size.peer_batches)
            ours.setdefault("log_batch", []).append(timed(lambda: batches(run, size.batches)) / size.batches)
            ours.setdefault("log_batch_synced", []).append(timed(lambda: batches(run, 10, sync=True)) / 10)
    figures: dict[str, Any] = {}
    read(folder, peer, size, ours, theirs, figures)
    peer.close()
    figures["ours_ms"] = {name: round(statistics.median(values) * 1000, 4) for name, values in ours.items()}
    figures["mlflow_ms"] = {name: round(statistics.median(values) * 1000, 3) for name, values in theirs.items()}
    ratios = {
        name: statistics.median(theirs[name.removesuffix("_synced")]) / statistics.median(values)
        for name, values in ours.items()
    }
    figures["durability"] = {
        "ours": "each call survives kill -9; a loss of power costs at most the last second",
        "mlflow": "each call is a transaction synced to the disk",
    }
    figures["versions"] = versions(("treadle", "blake3")) | {"mlflow": "3.17.2"}
    return ratios, figures


def read(
    folder: Path,
    peer: Pipe,
    size: Size,
    ours: dict[str, list[float]],
    theirs: dict[str, list[float]],
    figures: dict[str, Any],
) -> None:
    """Searching and opening."""
    made = made_up(size.searched, {"loss": 1, "accuracy": 1})
    peer.ask("fill", "s", made)
    searchable = filled(folder / "searched", made)
    del made  # a heap of its own would slow down whoever makes objects here
    with searchable as record:
        wanted = Search(parse(WHERE), sort=parse_field("metrics.loss"), limit=LIMIT)

        def searched() -> int:
            return len([(run.id, run.status, run.parameters, run.metrics) for run in search(record.runs, wanted)])

        found = [searched(), peer.answer("search", WHERE, "metrics.loss ASC", LIMIT)[1]]
        assert found[0] == found[1], found
        figures["search_found"] = found[0]
        for _ in range(size.rounds):
            theirs.setdefault("search", []).append(peer.ask("search", WHERE, "metrics.loss ASC", LIMIT))
            ours.setdefault("search", []).extend(timed(searched) for _ in range(10))  # short, so looked at more often
    made = made_up(size.opened, dict.fromkeys(("loss", "accuracy", "rate", "norm"), 50))
    peer.ask("fill", "o", made)
    with filled(folder / "opened", made) as record:
        last = record.runs.find(limit=1)[0].id

        def opened() -> int:
            run = record.runs.get(last)
            assert run is not None
            return sum(len(point) - 1 for point in whole(record, run)["points"])

        assert opened() == peer.answer("open_run")[1] == 200
        peer.ask("get_run")
        for _ in range(size.rounds * 3):
            theirs.setdefault("open_run", []).append(peer.ask("open_run"))
            theirs.setdefault("get_run", []).append(peer.ask("get_run"))
            ours.setdefault("open_run", []).append(timed(opened))
            ours.setdefault("get_run", []).append(timed(lambda: record.runs.get(last)))


def singles(run: Experiment, count: int, *, sync: bool = False) -> None:
    """One number a call; ``sync`` waits for the disk each time."""
    for number in range(count):
        run.log(number, loss=1 / (number + 1))
        if sync:
            synced(run)


def batches(run: Experiment, calls: int, *, sync: bool = False) -> None:
    """A thousand numbers a call."""
    for call in range(calls):
        run.log_many((call * BATCH + i, {"loss": 1 / (call * BATCH + i + 1)}) for i in range(BATCH))
        if sync:
            synced(run)


def synced(run: Experiment) -> None:
    """Wait until what was logged is on the disk."""
    segment = run._runs.journal._open.get(METRICS)
    if segment is not None:
        with suppress(OSError, ValueError):  # sealed just now, which is on the disk as well
            segment.sync()


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def made_up(count: int, metrics: dict[str, int]) -> list[dict[str, Any]]:
    """Runs: settings, tags, and of each metric so many values."""
    chance = random.Random(count)
    return [
        {
            "params": {"lr": round(chance.random() * 1e-3, 7), "layers": i % 12, "optimizer": ("adamw", "sgd")[i % 2]},
            "tags": {"team": "abc"[i % 3]},
            "metrics": {name: [round(chance.random() * 4, 6) for _ in range(n)] for name, n in metrics.items()},
        }
        for i in range(count)
    ]


def filled(folder: Path, made: list[dict[str, Any]]) -> AbstractContextManager[Record]:
    """A record with these runs, opened."""
    with treadle.start_run("first", folder=folder, system=None):
        pass
    with open_record(folder) as record:
        around = {
            "commit": None,
            "environment": record.store.put_bytes(run_facts.environment()),
            "surroundings": run_facts.keep_surroundings(folder, record.store),
            "actor": record.runs.keyed_actor(),
            "machine": run_facts.machine(),
        }
        each = SEAL_ROWS // max(len(values) for values in made[0]["metrics"].values())
        for start in range(0, len(made), each):
            write(record, made[start : start + each], around)
    return open_record(folder)


def write(record: Record, made: list[dict[str, Any]], around: dict[str, Any]) -> None:
    """The rows that these runs would have left, in one transaction, and their points."""
    facts, points = [], []
    for run in made:
        identifier, texts = new_id("run"), Texts(record.workspace.keys)
        body = {"kind": KIND, "version": 1, "key": "", "name": "fit", "seed": None, "inputs": {}, "texts": None}
        body |= {"parameters": texts.settings(run["params"]), "tags": texts.tags(run["tags"])}
        facts.append(Fact("run.started", {"run": identifier, "step": STEP + "fit", **body, **around}))
        last = {name: values[-1] for name, values in run["metrics"].items()}
        end = {"run": identifier, "status": "done", "seconds": 1.0, "metrics": last, "outputs": {}, "error": None}
        facts.append(Fact("run.finished", end))
        steps = max(map(len, run["metrics"].values()))
        points += [
            {"id": identifier, "time": now(), "step": i, "values": {n: v[i] for n, v in run["metrics"].items()}}
            for i in range(steps)
        ]
    record.ledger.append(*facts)
    record.workspace.journal.append_many(METRICS, points)
    record.workspace.journal.seal(METRICS)


class Pipe:
    """The peer, in a process of its own that stays."""

    def __init__(self, python: Path, folder: Path) -> None:
        (folder / "logged").mkdir()
        (folder / "searched").mkdir()
        (folder / "opened").mkdir()
        command = [str(python), str(ROOT / "benchmarks" / "tracking_peer.py")]
        command += [f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def answer(self, *asked: Any) -> tuple[float, int]:
        """Seconds, and what it found."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        if not said:
            raise SystemExit(f"the peer ended with {self._process.wait()} at {asked[0]}")
        seconds, found = json.loads(said)
        return seconds, found

    def ask(self, *asked: Any) -> float:
        """Seconds."""
        return self.answer(*asked)[0]

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def peer_environment() -> Path:
    """The peer's interpreter; its environment is made on first use."""
    return environment("mlflow", *PACKAGES) / "bin" / "python"


if __name__ == "__main__":
    main()
