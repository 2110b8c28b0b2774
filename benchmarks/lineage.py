"""Lineage of documents, both ways: ``python -m benchmarks.lineage [--quick] [--versions N]``.

Two histories of a model, ten million edges between documents and 10,000 versions in all (``--quick``: 200 versions).
*Scattered*: each version is made from a thousand documents out of a pool of ten for each version, so no two are alike.
*Grown*: each version is made from the thousand of the one before, but for two, as a real project's are; one version in
ten of the scattered.

Ancestors: from a version to its documents. Descendants: from a document to every version that holds it. Both by the
walk that ``treadle lineage`` prints, with its limit of a hundred nodes of a kind, over random nodes. ``cold`` is the
first such walk of a process, ``behind`` the walk without the index: every list is looked into. ``index_s`` is what the
index takes to make, from nothing; ``added_ms`` one more version. The medians ``_grown_tenfold`` are those over those in
a tenth of the versions.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
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
_AGAIN = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Ancestors and descendants over many documents and versions.")
    parser.add_argument("--quick", action="store_true", help="within 60 seconds: 200 versions")
    parser.add_argument("--versions", type=int, help="so many versions")
    given = parser.parse_args()
    count = given.versions or (QUICK if given.quick else VERSIONS)
    figures: dict[str, Any] = {"load_before": os.getloadavg()[0], "versions_of_the_model": count}
    chance = random.Random(17)
    pool = [chance.randbytes(32) for _ in range(10 * count)]
    figures |= {"edges": count * EACH, "documents": len(pool)}
    small = measured([sorted(chance.sample(pool[:count], EACH)) for _ in range(count // 10)], chance)
    figures |= measured((sorted(chance.sample(pool, EACH)) for _ in range(count)), chance)
    for name in ("ancestors", "descendants"):
        ratio = figures[f"{name}_median_ms"] / small[f"{name}_median_ms"]
        figures[f"{name}_grown_tenfold"] = round(ratio, 2)
    grown = measured(alike(max(count // 10, 2), chance), chance)
    figures |= {f"alike_{name}": value for name, value in grown.items()}
    figures |= {"load_after": os.getloadavg()[0], "versions": versions(("treadle", "blake3"))}
    print_report("lineage", {}, figures)


def alike(count: int, chance: random.Random) -> Iterator[list[bytes]]:
    """The documents of versions that are made from those of the one before, but for two."""
    held = [chance.randbytes(32) for _ in range(EACH)]
    for _ in range(count):
        for _ in range(2):
            held[chance.randrange(EACH)] = chance.randbytes(32)
        yield sorted(held)


def measured(lists: Any, chance: random.Random) -> dict[str, Any]:
    """Make a store of versions from these documents, and walk in it."""
    folder = Path(tempfile.mkdtemp(prefix="treadle-lineage-"))
    try:
        with _open(folder) as workspace:
            record = Record(workspace, "demo")
            begun = time.perf_counter()
            digests, kept = [], []
            for number, ids in enumerate(lists):
                digests.append(add(record, number, ids))
                kept.append(chance.choice(ids))
            figures: dict[str, Any] = {"fill_s": round(time.perf_counter() - begun, 1)}
            figures["behind_ms"] = round(statistics.median(_behind(record, chance.choice(kept))), 1)
            figures["index_s"] = round(timed(record.documents.catch_up), 2)
            figures |= sizes(folder, len(digests) * EACH)
            figures |= walks(record, kept, digests, chance)
            figures["added_ms"] = round(statistics.median(_added(record, ids, len(digests))), 1)
        with _open(folder) as workspace:
            record = Record(workspace, "demo")
            figures["cold_ms"] = round(timed(lambda: down(record, chance.choice(kept))) * 1_000, 1)
        return figures
    finally:
        shutil.rmtree(folder)


def _open(folder: Path) -> Workspace:
    return Workspace(folder, projections=PROJECTIONS)


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


def down(record: Record, document: bytes) -> None:
    """From a document to the versions that hold it."""
    walk = Lineage(record.workspace, record.versions, record.documents, lambda _: {}, 100, record.interactions)
    graph = walk.of_document(f"doc:{document.hex()}")
    assert graph.verified
    assert len(graph.nodes) > 1


def up(record: Record, digest: str) -> None:
    """From a version to its documents."""
    walk = Lineage(record.workspace, record.versions, record.documents, lambda _: {}, 100, record.interactions)
    graph = walk.of_artifact(digest, "model")
    assert graph.verified
    assert graph.truncated["document"] == EACH - 100


def walks(record: Record, documents: list[bytes], digests: list[str], chance: random.Random) -> dict[str, Any]:
    """p95 and median in milliseconds of walks from random nodes."""
    works: list[tuple[str, Callable[[], None]]] = [
        ("ancestors", lambda: up(record, chance.choice(digests))),
        ("descendants", lambda: down(record, chance.choice(documents))),
    ]
    found = {}
    for name, work in works:
        took = [timed(work) * 1_000 for _ in range(_TIMES)]
        found[f"{name}_p95_ms"] = round(percentile(took, 95), 2)
        found[f"{name}_median_ms"] = round(statistics.median(took), 2)
    return found


def _behind(record: Record, document: bytes) -> list[float]:
    """Milliseconds of looking into every list: what an index that has taken in nothing costs."""
    lists = [row.body["digest"] for row in record.ledger.rows("artifact")]

    def look() -> None:
        assert sum(Model(digest, record.store).has_document(f"doc:{document.hex()}") for digest in lists) > 0

    return [timed(look) * 1_000 for _ in range(_AGAIN)]


def _added(record: Record, ids: list[bytes], number: int) -> list[float]:
    """Milliseconds in which the index takes in one more version."""
    took = []
    for more in range(_AGAIN):
        add(record, number + more, ids[more + 1 :])
        took.append(timed(record.documents.catch_up) * 1_000)
    return took


def sizes(folder: Path, edges: int) -> dict[str, float]:
    """Bytes on the disk for each edge: in the store, and in what is kept beside the record."""
    objects = sum(path.stat().st_size for path in (folder / "objects").rglob("*") if path.is_file())
    cache = sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file())
    return {"store_bytes_per_edge": round(objects / edges, 2), "index_bytes_per_edge": round(cache / edges, 3)}


if __name__ == "__main__":
    main()
