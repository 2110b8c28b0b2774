"""The four filters in one process, in a pool and on Ray: ``python -m benchmarks.data_ray [--quick]``.

Documents are those of ``benchmarks.data_filters``, by ``run_transforms`` as ``prepare`` calls it. Every executor is
started twice, in turn, and the second of two passes counts, the better of the two starts. Ratios: ``ray`` and ``pool``
are the speed of two workers over that of one, ``overhead`` is the speed of two of Ray's workers over two of the pool's
(below 1: Ray costs more). ``machine`` is what two processes that know nothing of each other get done together over what
one does alone: what two workers can reach here. Figures: ``mb_per_s`` by executor and workers (10^6 bytes of UTF-8),
``start_s`` until the first result.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.data_filters import NAMES, documents
from benchmarks.report import print_report, versions
from treadle.core.executors import Executor, InProcess, Pool
from treadle.core.plugins import load
from treadle.text.accounting import Accounting
from treadle.text.document import Document, document_id
from treadle.text.transform import load_transforms, run_transforms

ROUNDS = 2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="One process, a pool and Ray.")
    parser.add_argument("--quick", action="store_true", help="a third of the documents")
    texts = documents()[:: 3 if parser.parse_args().quick else 1]
    ray: Any = load("treadle.executors", "ray").value
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(ROUNDS):
        for workers in (1, 2):
            found.setdefault(f"pool {workers}", []).append(speed(Pool(workers), texts))
            found.setdefault(f"ray {workers}", []).append(speed(ray(workers=workers), texts))
        found.setdefault("process", []).append(speed(InProcess(), texts))
        with ProcessPoolExecutor(2) as two:
            alone = next(two.map(alone_speed, [texts]))
            found.setdefault("alone", []).append((alone, 0.0))
            found.setdefault("together", []).append((sum(two.map(alone_speed, [texts, texts])), 0.0))
    speeds = {name: max(each)[0] for name, each in found.items()}
    ratios = {
        "ray": speeds["ray 2"] / speeds["ray 1"],
        "pool": speeds["pool 2"] / speeds["pool 1"],
        "overhead": speeds["ray 2"] / speeds["pool 2"],
        "machine": speeds["together"] / speeds["alone"],
    }
    figures = {
        "mb_per_s": {name: round(value, 2) for name, value in speeds.items()},
        "start_s": {name: round(min(start for _, start in each), 2) for name, each in found.items() if name[-1] == "2"},
        "load": round(os.getloadavg()[0], 1),
        "versions": versions(["ray", "numba"]),
    }
    print_report("data_ray", ratios, figures)


def speed(executor: Executor, texts: list[str]) -> tuple[float, float]:
    """MB/s of the second pass, and seconds until the first result."""
    batch = [
        Document(document_id("made", str(number), b""), "made", str(number), text) for number, text in enumerate(texts)
    ]
    transforms = load_transforms(list(NAMES), None)
    began = time.perf_counter()
    start = 0.0
    for _ in run_transforms([batch], transforms, Accounting(), executor.map):
        start = start or time.perf_counter() - began
    began = time.perf_counter()
    for _ in run_transforms([batch], transforms, Accounting(), executor.map):
        pass
    seconds = time.perf_counter() - began
    executor.close()
    return sum(len(text.encode()) for text in texts) / 1e6 / seconds, start


def alone_speed(texts: list[str]) -> float:
    """MB/s of one process."""
    return speed(InProcess(), texts)[0]


if __name__ == "__main__":
    main()
