"""Near duplicates beside datatrove's MinHash, in its own environment (``.venv-peers/datatrove``).

Both read the same documents from disk (all of ``6-pretraining-docs`` and the mail archive, as this repository's own
readers read them), find near duplicates in runs of five words, and write the documents that stay: datatrove in its
four stages from JSON lines to JSON lines, ours from a corpus to a corpus, candidates compared exactly. Each runs in a
process of its own, on one processor; the ratio is of processor seconds, imports left out.

``recall``: of the pairs in a sample whose Jaccard similarity, counted by sets of tuples of words, is at least 0.8, how
many did not both stay. ``precision``: of the documents that went, how many are at least so similar to the one named as
staying for it. ``peer_recall`` and ``peer_gone`` are datatrove's on the same documents.

    python -m benchmarks.data_dedup [--quick]
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers import DATATROVE, PEERS, environment, version
from benchmarks.report import print_report, versions
from treadle.text.accounting import Accounting
from treadle.text.corpus import read_documents, write_corpus
from treadle.text.document import Document
from treadle.text.duplicates import read_duplicates
from treadle.text.minhash import bands_and_rows
from treadle.text.shingles import DIVIDING, SINGLE
from treadle.text.source import SourceContext, open_source, read_sources
from treadle.text.transform import load_transforms, run_transforms

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TREADLE_TEST_DATA", ROOT.parent / "shared" / "data"))
PEER = PEERS / "datatrove"
SOURCES = ("6-pretraining-docs/*", "5-pii/spamassassin_mail.tar.gz")
THRESHOLD = 0.8
_WORDS = 5
_SAMPLE = 2_000
_ROUNDS = 3  # of ours; the peer takes a minute and runs once

THEIRS = """
import json, sys, time
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.logging import logger
logger.remove()
source, place = sys.argv[1:]
config = MinhashConfig(n_grams=5)
def run(name, pipeline, tasks=1):
    LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=f"{place}/logs-{name}").run()
began, wall = time.process_time(), time.perf_counter()
signatures, buckets, remove = (f"{place}/{name}" for name in ("signatures", "buckets", "remove"))
run("signature", [JsonlReader(source), MinhashDedupSignature(signatures, config=config)])
run("buckets", [MinhashDedupBuckets(signatures, buckets, config=config)], tasks=config.num_buckets)
run("cluster", [MinhashDedupCluster(buckets, remove, config=config, save_cluster_id=True)])
kept = f"{place}/kept"
run("filter", [JsonlReader(source), MinhashDedupFilter(remove, load_cluster_ids=True,
    exclusion_writer=JsonlWriter(f"{place}/gone", compression=None)), JsonlWriter(kept, compression=None)])
print(json.dumps({"seconds": time.process_time() - began, "wall": time.perf_counter() - wall}))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Near duplicates beside datatrove.")
    parser.add_argument("--quick", action="store_true", help="an eighth of the documents")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*map(Path, arguments.worker))
        return
    make_peer()
    with tempfile.TemporaryDirectory(prefix="treadle-dedup-") as name:
        folder = Path(name)
        documents = list(itertools.chain.from_iterable(read()))
        if arguments.quick:
            documents = documents[::8]
        characters = sum(len(document.text) for document in documents)
        (folder / "corpus").mkdir()
        write_corpus(folder / "corpus", [documents])
        ours = [worker(folder / "corpus", folder / f"ours-{number}") for number in range(_ROUNDS)]
        theirs = peer(documents, folder)
        found = agreement(documents, ours_gone(folder / "ours-0"), peers_gone(folder))
    best = min(each["seconds"] for each in ours)
    figures: dict[str, Any] = {
        "documents": len(documents),
        "mb": round(characters / 1e6, 2),
        **found,
        "mb_per_s": round(characters / 1e6 / best, 1),
        "mb_per_s_first": round(characters / 1e6 / ours[0]["seconds"], 1),
        "peer_mb_per_s": round(characters / 1e6 / theirs["seconds"], 2),
        "peak_mb": max(each["peak_mb"] for each in ours),
        "bands_rows": bands_and_rows(THRESHOLD),
        "seconds": {"treadle": [round(each["seconds"], 3) for each in ours], "datatrove": round(theirs["seconds"], 3)},
        "wall": {"treadle": [round(each["wall"], 3) for each in ours], "datatrove": round(theirs["wall"], 3)},
        "load": round(os.getloadavg()[0], 1),
        "versions": versions(("treadle", "numpy", "pyarrow")) | {"datatrove": peer_version()},
    }
    print_report("data_dedup", {"minhash": theirs["seconds"] / sorted(e["seconds"] for e in ours)[1]}, figures)


def read() -> Iterator[list[Document]]:
    """All documents there are."""
    context = SourceContext(DATA, lambda name: name)
    return read_sources([open_source({"type": "files", "path": each}, context) for each in SOURCES], Accounting())


def worker(source: Path, target: Path) -> dict[str, float]:
    """Ours in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data_dedup", "--worker", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return dict(json.loads(done.stdout))


def work(source: Path, target: Path) -> None:
    """From a corpus to one without near duplicates, timed from within."""
    import pyarrow as pa
    import pyarrow.parquet  # imports are left out on both sides

    import treadle.text.personal_data  # noqa: F401

    pa.array([""])  # imports pandas where it is installed

    target.mkdir()
    transforms = load_transforms([{"deduplicate_near": {"threshold": THRESHOLD}}], None)
    accounting = Accounting()
    began, wall = time.process_time(), time.perf_counter()
    write_corpus(target, run_transforms(read_documents(source), transforms, accounting))
    accounting.write(target)
    figures = {
        "seconds": time.process_time() - began,
        "wall": time.perf_counter() - wall,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    print(json.dumps(figures))


def make_peer() -> None:
    """Datatrove in an environment of its own, made on first use; 0.10 hashes texts as xxhash before 4 took them."""
    environment("datatrove", *DATATROVE)


def peer_version() -> str:
    """The version of datatrove that was measured."""
    return version(PEER, "datatrove")


def peer(documents: Iterable[Document], folder: Path) -> dict[str, float]:
    """Theirs on the same documents."""
    source = folder / "jsonl"
    source.mkdir()
    with (source / "documents.jsonl").open("w") as file:
        for document in documents:
            file.write(json.dumps({"id": document.id, "text": document.text}) + "\n")
    command = [str(PEER / "bin" / "python"), "-c", THEIRS, str(source), str(folder / "peer")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def ours_gone(folder: Path) -> dict[str, str]:
    """Which document stays for each that went."""
    return {row.document: row.kept for row in read_duplicates(folder)}


def peers_gone(folder: Path) -> set[str]:
    """Which documents went there."""
    lines = [line for path in (folder / "peer" / "gone").glob("*.jsonl") for line in path.read_text().splitlines()]
    return {json.loads(line)["id"] for line in lines}


def agreement(documents: list[Document], gone: dict[str, str], theirs: set[str]) -> dict[str, float | int]:
    """Recall on a sample, each pair compared; precision on all documents that went."""
    sample = random.Random(7).sample(documents, min(_SAMPLE, len(documents)))
    found = [(runs_of(each.text), each.id) for each in sample]
    sets = sorted((each for each in found if each[0]), key=lambda pair: (len(pair[0]), pair[1]))
    true = ours = peers = 0
    for place, (one, first) in enumerate(sets):
        for other, second in itertools.islice(sets, place + 1, None):
            if len(one) < THRESHOLD * len(other):
                break
            common = len(one & other)
            if common >= THRESHOLD * (len(one) + len(other) - common):
                true += 1
                ours += first in gone or second in gone
                peers += first in theirs or second in theirs
    by_id = {document.id: document for document in documents}
    right = 0
    for name, kept in gone.items():
        one, other = runs_of(by_id[name].text), runs_of(by_id[kept].text)
        right += len(one & other) >= THRESHOLD * len(one | other)
    return {
        "true_pairs": true,
        "recall": round(ours / max(1, true), 4),
        "precision": round(right / max(1, len(gone)), 4),
        "gone": len(gone),
        "peer_recall": round(peers / max(1, true), 4),
        "peer_gone": len(theirs),
    }


def _class(ranges: Iterable[tuple[int, int]]) -> str:
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


_WORD = re.compile(f"[{_class(SINGLE)}]|[^{_class((*DIVIDING, *SINGLE))}]+")


@functools.cache
def _lower(character: str) -> str:
    low = character.lower()
    return "\u03c3" if low == "\u03c2" else low if len(low) == 1 else character


def runs_of(text: str) -> frozenset[tuple[str, ...]]:
    """Runs of words as tuples of texts: the same words as ours, found another way."""
    words = _WORD.findall("".join(map(_lower, text)))
    if 0 < len(words) < _WORDS:
        return frozenset({tuple(words)})
    return frozenset(tuple(words[at : at + _WORDS]) for at in range(len(words) - _WORDS + 1))


if __name__ == "__main__":
    main()
