"""The store beside DVC: ``python -m benchmarks.store [--quick]``.

Both take the same folder of random bytes into a new store, as library calls in processes of their own, in turn: one
file of 1 GB (three times), then 100,000 files of 4 kB (ours, theirs, ours), then the same 100,000 again, unchanged. The
page cache is warm for both. Ours has every byte on the disk when it returns (synced, then named); DVC 3 syncs nothing.
DVC links or copies into its cache as it is configured by default, on a file system that cannot share blocks.

``encryption_cost``: what AES-256-GCM adds to the seconds of `put_large`.

``rewritten_fraction``: pushed, one byte inserted in the middle, added, pushed again: bytes sent over bytes held.
``peak_*_mb``: the largest resident memory of a process that adds, pushes or pulls one file of ``peak_gb``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS, environment, version
from benchmarks.report import print_report, versions
from treadle.core.cipher import Cipher
from treadle.core.remote import FolderRemote
from treadle.core.store import Store
from treadle.core.transfer import Transfer

ROOT = Path(__file__).resolve().parent.parent
PEER = PEERS / "dvc"
_PIECE = 16 << 20  # bytes of random data made at a time
_SETTLE = 1.5  # seconds until a file that was just written counts as unchanged

Take = Callable[[Path], dict[str, float]]

DVC = """
import json, os, sys, time
folder, name = sys.argv[1:]
os.chdir(folder)
from dvc.repo import Repo
repo = Repo(".") if os.path.isdir(".dvc") else Repo.init(".", no_scm=True)
began = time.perf_counter()
repo.add(name)
print(json.dumps({"seconds": time.perf_counter() - began}))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The store beside DVC.")
    parser.add_argument("--quick", action="store_true", help="smaller, within 60 seconds")
    parser.add_argument("--worker", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker)
        return
    quick = arguments.quick
    make_peer()
    large, count, rounds, peak = (128 << 20, 2_000, 3, 128 << 20) if quick else (1 << 30, 100_000, 3, 5 << 30)
    with tempfile.TemporaryDirectory(prefix="treadle-store-", dir=PEERS) as name:
        folder = Path(name)
        seconds, puts, cost = measure(folder, large, count, rounds)
        ratios = {key: statistics.median(theirs) / statistics.median(ours) for key, (ours, theirs) in seconds.items()}
        figures: dict[str, Any] = {
            "large_bytes": large,
            "files": count,
            "seconds": {
                key: {"treadle": _rounded(ours), "dvc": _rounded(theirs)} for key, (ours, theirs) in seconds.items()
            },
            "put_peak_mb": puts,
            "encryption_cost": round(cost, 3),
            "rewritten_fraction": round(rewritten(folder, large), 4),
            **peaks(folder, peak),
            "load": round(os.getloadavg()[0], 1),
            "versions": versions(("treadle", "blake3", "pyfastcdc")) | {"dvc": peer_version()},
        }
    print_report("store", ratios, figures)


def make_peer() -> None:
    """DVC in an environment of its own, made on first use."""
    environment("dvc", "dvc")


def peer_version() -> str:
    """The version of DVC that was measured."""
    return version(PEER, "dvc")


def measure(
    folder: Path, large: int, count: int, rounds: int
) -> tuple[dict[str, tuple[list[float], list[float]]], dict[str, float], float]:
    """Seconds of ours and theirs by task, our largest memory by task, and what encryption adds to `put_large`."""
    write_file(folder / "large" / "data" / "file", large)
    write_many(folder / "many" / "data", count)
    seconds: dict[str, tuple[list[float], list[float]]] = {
        key: ([], []) for key in ("put_large", "put_many", "unchanged")
    }
    peak: dict[str, float] = {}
    encrypted: list[float] = []

    def turn(task: str, take: Take, number: int) -> Path:
        # Nothing is deleted in between: ext4 makes new files slowly for a while after many were.
        which = task.removeprefix("put_")
        place = folder / f"{take.__name__}-{which}-{number}"
        shutil.copytree(folder / which / "data", place / "data")
        os.sync()
        time.sleep(_SETTLE)
        first = take(place)
        if take is encrypted_takes:
            encrypted.append(first["seconds"])
        else:
            seconds[task][take is theirs_takes].append(first["seconds"])
        if take is not theirs_takes:
            peak[task] = max(peak.get(task, 0.0), first["peak_mb"])
        return place

    for number in range(rounds):
        turns: list[Take] = [ours_takes, encrypted_takes, theirs_takes]
        for take in turns[number % 3 :] + turns[: number % 3]:
            shutil.rmtree(turn("put_large", take, number))
    for number, take in enumerate((ours_takes, theirs_takes, ours_takes)):
        place = turn("put_many", take, number)
        for _ in range(2):
            seconds["unchanged"][take is theirs_takes].append(take(place)["seconds"])
    cost = statistics.median(encrypted) / statistics.median(seconds["put_large"][0]) - 1
    return seconds, peak, cost


def ours_takes(place: Path) -> dict[str, float]:
    """Add the folder ``data`` in ``place`` to the store there."""
    return worker("add", place / "store", place / "data")


def encrypted_takes(place: Path) -> dict[str, float]:
    """The same, encrypted."""
    return worker("add-encrypted", place / "store", place / "data")


def theirs_takes(place: Path) -> dict[str, float]:
    """The same with DVC."""
    command = [str(PEER / "bin" / "python"), "-c", DVC, str(place), "data"]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def rewritten(folder: Path, size: int) -> float:
    """The part of a large file that is sent again after one byte was inserted in its middle."""
    place = folder / "inserted"
    data = place / "data"
    data.mkdir(parents=True)
    shutil.copy(folder / "large" / "data" / "file", data / "file")
    worker("add", place / "store", data)
    worker("push", place / "store", place / "remote")
    with (folder / "large" / "data" / "file").open("rb") as source, (data / "file").open("wb") as target:
        for start in range(0, size, _PIECE):
            target.write(b"!" * (start == size // 2) + source.read(_PIECE))
    worker("add", place / "store", data)
    sent = worker("push", place / "store", place / "remote")["bytes"]
    shutil.rmtree(place)
    return sent / size


def peaks(folder: Path, size: int) -> dict[str, float]:
    """Memory, and seconds, of adding, pushing and pulling one file."""
    place = folder / "peak"
    write_file(place / "data" / "file", size)
    os.sync()
    found = {
        "put": worker("add", place / "store", place / "data"),
        "push": worker("push", place / "store", place / "remote"),
    }
    shutil.rmtree(place / "data")
    shutil.rmtree(place / "store")
    found["pull"] = worker("pull", place / "store", place / "remote")
    shutil.rmtree(place)
    figures = {f"peak_{name}_mb": each["peak_mb"] for name, each in found.items()}
    return {"peak_gb": size / (1 << 30), **figures} | {
        f"{name}_gb_s": round(size / (1 << 30) / each["seconds"], 2) for name, each in found.items()
    }


def worker(*arguments: str | Path) -> dict[str, float]:
    """One call in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.store", "--worker", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return dict(json.loads(done.stdout))


def work(task: str, root: str, place: str) -> None:
    """What a worker does, timed from within, with the largest memory of its process in MB."""
    store = Store(Path(root), Cipher([os.urandom(32)]) if task == "add-encrypted" else None)
    began, sent = time.perf_counter(), 0
    if task.startswith("add"):
        store.add(Path(place))
    else:
        with Transfer(store, FolderRemote(Path(place))) as transfer:
            if task == "push":
                transfer.send(name for name, _ in store.objects())
            else:
                transfer.fetch(transfer.held())
            sent = transfer.moved.bytes
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": round(peak, 1), "bytes": sent}))


def write_file(path: Path, size: int) -> None:
    """One file of random bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            file.write(os.urandom(min(_PIECE, size - start)))


def write_many(folder: Path, count: int) -> None:
    """Files of 4 kB, a thousand to a folder."""
    for number in range(count):
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.bin"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(4096))


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 3) for value in values]


if __name__ == "__main__":
    main()
