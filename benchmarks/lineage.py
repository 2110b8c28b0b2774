"""Lineage of documents, both ways: ``python -m benchmarks.lineage [--quick] [--versions N]``.

Versions of a model, each made from a thousand documents out of a pool of ten for each version: ten million edges
between documents and 10,000 versions (``--quick``: 200 versions). Ancestors: from a version to its documents.
Descendants: from a document to every version that holds it, as the console asks, by the index that is kept beside the
record. Both by the walk that ``treadle lineage`` prints, with its limit of a hundred nodes of a kind, over random
nodes; ``descendants_cold`` is the walk that reads the store itself.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.ledger import timed
from benchmarks.report import percentile, print_report, versions
from treadle.core.artifacts import Builder
from treadle.core.ledger import Fact
from treadle.core.workspace import Workspace
from treadle.lm.model import Model
from treadle.record.lineage import Lineage
from treadle.record.record import PROJECTIONS, Record

VERSIONS, QUICK = 10_000, 200
EACH = 1_000  # documents of a version
_TIMES = 200
_COLD = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Ancestors and descendants over many documents and versions.")
    parser.add_argument("--quick", action="store_true", help="within 60 seconds: 200 versions")
    parser.add_argument("--versions", type=int, help="so many versions")
    given = parser.parse_args()
    count = given.versions or (QUICK if given.quick else VERSIONS)
    folder = Path(tempfile.mkdtemp(prefix="treadle-lineage-"))
    try:
        with Workspace(folder, projections=PROJECTIONS) as workspace:
            record, chance = Record(workspace, "demo"), random.Random(17)
            pool = [chance.randbytes(32) for _ in range(10 * count)]
            begun = time.perf_counter()
            digests = [add(record, number, sorted(chance.sample(pool, EACH))) for number in range(count)]
            figures: dict[str, Any] = {"edges": count * EACH, "versions_of_the_model": count, "documents": len(pool)}
            figures["fill_s"] = round(time.perf_counter() - begun, 1)
            figures["index_s"] = round(timed(record.interactions.catch_up), 2)
            figures |= walks(record, pool, digests, chance)
            figures |= sizes(folder, count * EACH)
        figures |= {"load_after": os.getloadavg()[0], "versions": versions(("treadle", "blake3"))}
        print_report("lineage", {}, figures)
    finally:
        shutil.rmtree(folder)


def add(record: Record, number: int, ids: list[bytes]) -> str:
    """A model that was made from these documents, with its rows in the ledger."""
    with Builder(Model, record.store) as builder:
        (builder.path / "documents.ids").write_bytes(b"".join(ids))
        (builder.path / "number.txt").write_text(str(number))
        digest = builder.commit().digest
    body = {"digest": digest, "kind": "model", "bytes": 32 * len(ids), "documents": len(ids), "run": f"run-{number}"}
    version = {"of": "model", "name": "demo", "number": number + 1, "digest": digest, "run": None}
    record.ledger.append(Fact("artifact", body), Fact("version", version))
    return digest


def walks(record: Record, pool: list[bytes], digests: list[str], chance: random.Random) -> dict[str, Any]:
    """p95 and median in milliseconds of walks from random nodes."""

    def lineage(*, indexed: bool) -> Lineage:
        index = record.interactions if indexed else None
        return Lineage(record.workspace, record.versions, lambda _: {}, 100, index)

    def up() -> None:
        assert lineage(indexed=True).of_artifact(chance.choice(digests), "model").verified

    def down() -> None:
        assert lineage(indexed=True).of_document(f"doc:{chance.choice(pool).hex()}").verified

    def cold() -> None:
        assert lineage(indexed=False).of_document(f"doc:{chance.choice(pool).hex()}").verified

    works: list[tuple[str, Callable[[], None], int]] = [
        ("ancestors", up, _TIMES),
        ("descendants", down, _TIMES),
        ("descendants_cold", cold, _COLD),
    ]
    found = {}
    for name, work, times in works:
        took = [timed(work) * 1_000 for _ in range(times)]
        found[f"{name}_p95_ms"] = round(percentile(took, 95), 2)
        found[f"{name}_median_ms"] = round(statistics.median(took), 2)
    return found


def sizes(folder: Path, edges: int) -> dict[str, float]:
    """Bytes on the disk for each edge: in the store, and in what is kept beside the record."""
    objects = sum(path.stat().st_size for path in (folder / "objects").rglob("*") if path.is_file())
    cache = sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file())
    return {"store_bytes_per_edge": round(objects / edges, 2), "index_bytes_per_edge": round(cache / edges, 2)}


if __name__ == "__main__":
    main()
