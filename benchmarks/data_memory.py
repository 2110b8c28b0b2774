"""Memory of collect and prepare: ``python -m benchmarks.data_memory [--gigabytes N] [--quick]``.

Text is made by repetition with changes: 2,000 to 6,000 characters from anywhere in ``tinyshakespeare``, a number of
its own, and every tenth a second time. It goes from JSON lines through what the steps of ``collect`` and ``prepare``
do: read, written as a corpus; normalized, filtered, freed of exact duplicates, written again. Each step of each size
runs in a process of its own. ``peak_mb``: the most memory it held (10^6 bytes), for a tenth of the text and for all of
it; ``growth``: the second over the first, 1.2 wanted. ``documents`` and ``seconds`` are of all of it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import print_report
from treadle.core.digest import keyed_digest
from treadle.core.document_ids import DocumentIds
from treadle.text.accounting import Accounting
from treadle.text.corpus import read_documents, write_corpus
from treadle.text.source import SourceContext, open_source, read_sources
from treadle.text.transform import load_transforms, run_transforms

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TREADLE_TEST_DATA", ROOT.parent / "shared" / "data"))
STEPS: list[Any] = ["normalize", {"filter": {"min_chars": 50}}, "gopher_quality", "deduplicate"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Memory of collect and prepare.")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="text that is read, and a tenth of it")
    parser.add_argument("--quick", action="store_true", help="a tenth of that, within a minute")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker[0], Path(arguments.worker[1]))
        return
    size = arguments.gigabytes / (10 if arguments.quick else 1)
    peaks: dict[str, dict[str, float]] = {}
    found: dict[str, Any] = {}
    for gigabytes in (size / 10, size):
        with tempfile.TemporaryDirectory(prefix="treadle-memory-") as name:
            folder = Path(name)
            make(folder / "text.jsonl", int(gigabytes * 1e9))
            began = time.perf_counter()
            for task in ("collect", "clean"):
                found = worker(task, folder)
                peaks.setdefault(task, {})[f"{gigabytes:g} GB"] = found["peak_mb"]
            found["seconds"] = round(time.perf_counter() - began, 1)
    growth = {task: round(max(each.values()) / min(each.values()), 3) for task, each in peaks.items()}
    figures = {"peak_mb": peaks, "growth": growth, **{key: found[key] for key in ("documents", "kept", "seconds")}}
    print_report("data_memory", {}, figures)


def make(path: Path, size: int) -> None:
    """JSON lines with ``size`` characters of text."""
    text = gzip.decompress((DATA / "6-pretraining-docs" / "tinyshakespeare.txt.gz").read_bytes()).decode()
    chance = random.Random(1)
    written = number = 0
    with path.open("w", encoding="ascii") as file:
        while written < size:
            start, length = chance.randrange(len(text) - 6_000), chance.randrange(2_000, 6_000)
            line = json.dumps({"text": f"{number}. {text[start : start + length]}"}) + "\n"
            for _ in range(2 if number % 10 == 0 else 1):
                file.write(line)
                written += length
            number += 1


def worker(task: str, folder: Path) -> dict[str, Any]:
    """What a process of its own found."""
    command = [sys.executable, "-m", "benchmarks.data_memory", "--worker", task, str(folder)]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout))


def work(task: str, folder: Path) -> None:
    """One step as its stage does it, and the most memory it held."""
    accounting, ids = Accounting(), DocumentIds()
    target = folder / task
    target.mkdir()
    if task == "collect":
        context = SourceContext(folder, lambda name: keyed_digest(b"k" * 32, "subject", name))
        batches: Iterator[Any] = read_sources(
            [open_source({"type": "files", "path": "text.jsonl"}, context)], accounting
        )
    else:
        batches = run_transforms(read_documents(folder / "collect"), load_transforms(STEPS, None), accounting)
    ids.update(write_corpus(target, batches))
    with (target / "ids").open("wb") as file:
        file.writelines(ids.sorted())
    accounting.write(target)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"peak_mb": round(peak, 1), "documents": accounting.read, "kept": accounting.kept}))


if __name__ == "__main__":
    main()
