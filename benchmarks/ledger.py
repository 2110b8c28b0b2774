"""The ledger as it grows tenfold: ``python -m benchmarks.ledger [--quick]``.

Two ledgers of the same kind of rows, the larger ten times the smaller (a million rows; with ``--quick`` a hundred
thousand): one row in ten starts a run, one ends it, one is an artifact (these three are drawn into query tables), the
rest are seals of the journal, with which nearly all rows of a long life come. Both are measured in one process, in
turns.

``verify_1m_s`` is the audit of all rows, heads, projections and nodes, ``verify`` without reading the store's objects.
``proof_ms`` is the p95 of an inclusion proof of a random row, made and checked. ``append_p99_ms`` is one row a
transaction, as durable as Treadle is by default: it survives the process, and a loss of power but for the last quarter
of a second; ``append_synced_ms`` is the median where each waits for the disk. On a machine that does other things as
well, the medians and the processor's time for ``verify`` say more than the rest. There is no peer: none of those that
keep experiments has proofs.
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

from benchmarks.report import percentile, print_report, versions
from treadle.core.ledger import Fact
from treadle.core.workspace import Workspace
from treadle.record.record import PROJECTIONS

ROWS = 1_000_000
QUICK = 100_000
_BATCH = 5_000
_PROOFS = 1_000
_APPENDS = 3_000
_SYNCED = 200


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The ledger's append, proof and verify as it grows.")
    parser.add_argument("--quick", action="store_true", help="within 60 seconds: a hundred thousand rows")
    rows = QUICK if parser.parse_args().quick else ROWS
    folder = Path(tempfile.mkdtemp(prefix="treadle-ledger-"))
    try:
        small, large = folder / "small", folder / "large"
        figures: dict[str, Any] = {"rows": rows, "load_before": os.getloadavg()[0]}
        figures["fill_rows_per_s"] = round(fill(large, rows))
        fill(small, rows // 10)
        figures |= sizes(large, rows)
        with _open(small) as one, _open(large) as ten:
            figures |= grown(one, ten)
            processor = time.process_time()
            verify_s = min(timed(ten.ledger.audit) for _ in range(3))
            figures["verify_s"] = round(verify_s, 3)
            figures["verify_processor_s"] = round((time.process_time() - processor) / 3, 3)
            if rows == ROWS:
                figures["verify_1m_s"] = round(verify_s, 3)
            figures["verify_small_s"] = round(min(timed(one.ledger.audit) for _ in range(3)), 3)
        figures |= {"load_after": os.getloadavg()[0], "versions": versions(("treadle", "blake3", "cryptography"))}
        print_report("ledger", {}, figures)
    finally:
        shutil.rmtree(folder)


def _open(folder: Path) -> Workspace:
    return Workspace(folder, projections=PROJECTIONS)


def facts(count: int) -> Iterator[Fact]:
    """Rows as a long life has them."""
    chance = random.Random(17)
    for number in range(count):
        digest, run = f"b3:{chance.getrandbits(256):064x}", f"run-01M83VN7B2P1A1NSWJ{number // 10:08}"
        if number % 10 == 0:
            started = {"run": run, "step": "prepare.clean", "kind": "step", "version": 1, "key": digest, "seed": 17}
            given = {"parameters": {"threshold": 0.8}, "inputs": {"corpus": digest}, "environment": digest}
            yield Fact("run.started", started | given | {"commit": None, "actor": "k3:" + "0" * 40, "machine": "k3:1"})
        elif number % 10 == 1:
            body = {"digest": digest, "kind": "corpus", "bytes": number, "documents": 5, "run": run}
            yield Fact("artifact", body)
        elif number % 10 == 2:
            done = {
                "run": run,
                "status": "done",
                "seconds": 1.5,
                "metrics": {"kept": 0.9},
                "outputs": {"corpus": digest},
            }
            yield Fact("run.finished", done | {"error": None})
        else:
            names = {"segment": f"seg-01M83VN7B2P1A1NSWJ{number:08}", "file": digest, "replaces": None, "damaged": 0}
            span = {"rows": 5_000, "first": "2026-01-31T12:00:00.000000Z", "last": "2026-01-31T12:01:00.000000Z"}
            yield Fact("seal", {"stream": "interactions", "ids": digest} | names | span)


def fill(folder: Path, rows: int) -> float:
    """Make a ledger of about so many rows; rows a second, thousands in a transaction."""
    begun = time.perf_counter()
    with _open(folder) as workspace:
        batch: list[Fact] = []
        for fact in facts(rows - workspace.ledger.size()):
            batch.append(fact)
            if len(batch) == _BATCH:
                workspace.ledger.append(*batch)
                batch.clear()
        if batch:
            workspace.ledger.append(*batch)
    return rows / (time.perf_counter() - begun)


def sizes(folder: Path, rows: int) -> dict[str, float]:
    """Bytes on the disk for each row: all, and what the tree's nodes take of it."""
    with _open(folder) as workspace:
        page = workspace.database.query("PRAGMA page_size")[0][0]
        pages = dict(workspace.database.query("SELECT name, count(*) FROM dbstat GROUP BY name"))
    nodes = sum(count for name, count in pages.items() if "ledger_nodes" in name)
    ledger = sum(count for name, count in pages.items() if name in ("ledger", "ledger_kind"))
    return {
        "bytes_per_row": round((folder / "treadle.db").stat().st_size / rows, 1),
        "ledger_bytes_per_row": round(ledger * page / rows, 1),
        "nodes_bytes_per_row": round(nodes * page / rows, 2),
    }


def grown(one: Workspace, ten: Workspace) -> dict[str, Any]:
    """What one call costs in the large ledger, and how much more than in the small one."""
    found: dict[str, Any] = {}
    chance = random.Random(3)

    def proof(workspace: Workspace) -> None:
        head = workspace.ledger.head()
        workspace.ledger.inclusion(chance.randint(1, head.size), head)

    def consistency(workspace: Workspace) -> None:
        later = workspace.ledger.head()
        workspace.ledger.consistency(heads[workspace.root], later)

    def append(workspace: Workspace) -> None:
        workspace.ledger.append(Fact("seal", {"stream": "interactions", "rows": 5_000, "segment": "b3:" + "0" * 64}))

    def synced(workspace: Workspace) -> None:
        workspace.ledger.append(Fact("approval", {"ref": "model/demo@v1", "decision": "approve"}), sync=True)

    def last(workspace: Workspace) -> None:
        workspace.ledger.last("run.finished")

    heads = {workspace.root: workspace.ledger.head() for workspace in (one, ten)}
    works: list[tuple[str, Callable[[Workspace], None], int, int]] = [
        ("proof", proof, _PROOFS, 95),
        ("append", append, _APPENDS, 99),
        ("append_synced", synced, _SYNCED, 50),
        ("consistency", consistency, _PROOFS, 95),
        ("last_of_kind", last, _PROOFS, 95),
    ]
    for name, work, times, percent in works:
        took: dict[Path, list[float]] = {one.root: [], ten.root: []}
        for _ in range(times):  # in turns, so that what else the machine does falls on both
            for workspace in (one, ten):
                took[workspace.root].append(timed(lambda: work(workspace)) * 1_000)  # noqa: B023 (called at once)
        mark = "p99_ms" if percent == 99 else "ms"
        found[f"{name}_{mark}"] = round(percentile(took[ten.root], percent), 4)
        found[f"{name}_median_ms"] = round(statistics.median(took[ten.root]), 4)
        medians = [statistics.median(took[workspace.root]) for workspace in (one, ten)]
        found[f"{name}_grown"] = round(medians[1] / medians[0], 2)
    return found


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
