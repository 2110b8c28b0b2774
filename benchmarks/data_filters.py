"""The filters beside datatrove: ``python -m benchmarks.data_filters [--quick]``.

Documents are those that the source ``files`` reads in ``6-pretraining-docs``. ``mismatches`` counts documents that any
of the four filters (Gopher repetition, Gopher quality, C4, FineWeb, with their defaults), or the four in a chain,
keeps, drops by another rule or leaves with another text than datatrove does; ``decisions`` is how many were compared.

``chain_cold`` and ``chain_hot``: the chain over every fourth document (a document that is dropped goes no further),
processor seconds of theirs over ours, one processor, in processes of their own and in turn. Cold is the first pass of a
fresh process, after a first text has loaded both programs (imports, rules, and ours compiled before and read from the
disk); hot is a second pass. Datatrove keeps nothing between documents, so one pass of it stands for both.
``alone``: MB/s of each filter by itself, on fewer documents. ``pipeline``: MB/s by the clock of the four transforms in
``run_transforms`` as ``prepare`` calls it, in one process and in a pool, second pass. MB are 10^6 bytes of UTF-8.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers import DATATROVE, PEERS, environment
from benchmarks.report import print_report, versions
from treadle.core.executors import InProcess, Pool
from treadle.text.accounting import Accounting
from treadle.text.document import Document, document_id
from treadle.text.gopher import GopherQuality, GopherRepetition
from treadle.text.source import SourceContext, open_source, read_sources
from treadle.text.transform import load_transforms, run_transforms
from treadle.text.web_quality import C4, FineWeb

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TREADLE_TEST_DATA", ROOT.parent / "shared" / "data"))
PEER = PEERS / "datatrove"
NAMES = ("gopher_repetition", "gopher_quality", "c4", "fineweb")

Judge = Callable[[str], tuple[str | None, str]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The filters beside datatrove.")
    parser.add_argument("--quick", action="store_true", help="fewer documents, within a minute")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker)
        return
    make_peer()
    texts = documents()[:: 20 if arguments.quick else 1]
    with tempfile.TemporaryDirectory(prefix="treadle-filters-") as name:
        folder = Path(name)
        wrong = mismatches(texts, folder)
        ratios, figures = beside_peer(texts[:: 2 if arguments.quick else 4], folder, 1 if arguments.quick else 2)
    figures = {
        "mismatches": len(wrong),
        "documents": len(texts),
        "decisions": len(texts) * (len(NAMES) + 1),
        **figures,
        "pipeline_mb_per_s": pipeline(texts),
        "load": round(os.getloadavg()[0], 1),
    }
    print_report("data_filters", ratios, figures)


def make_peer() -> None:
    """Datatrove in an environment of its own, made on first use."""
    environment("datatrove", *DATATROVE)


def documents() -> list[str]:
    """The text of every document in the folder."""
    source = open_source({"type": "files", "path": str(DATA / "6-pretraining-docs")}, SourceContext(ROOT, str))
    return [document.text for batch in read_sources([source], Accounting()) for document in batch]


def judges() -> dict[str, Judge]:
    """Our filters: why a text is dropped, or None, and what is left of it."""
    line_filter = C4()

    def of_c4(text: str) -> tuple[str | None, str]:
        found, left = line_filter.finding(text, Counter())
        return (found[0], text) if found else (None, left)

    def alone(one: GopherRepetition | GopherQuality | FineWeb) -> Judge:
        def judge(text: str) -> tuple[str | None, str]:
            found = one.finding(text)
            return (found[0] if found else None, text)

        return judge

    return dict(zip(NAMES, (alone(GopherRepetition()), alone(GopherQuality()), of_c4, alone(FineWeb())), strict=True))


def decisions(texts: list[str]) -> Iterator[dict[str, Any]]:
    """For each text what each filter says of it alone, and what the chain of the four does."""
    four = judges()
    for text in texts:
        said: dict[str, Any] = {name: _answer(*judge(text)) for name, judge in four.items()}
        left, chain = text, None
        for name, judge in four.items():
            reason, left = judge(left)
            if reason is not None:
                chain = f"{name}.{reason}"
                break
        yield said | {"chain": _answer(chain, left)}


def mismatches(texts: list[str], folder: Path) -> list[int]:
    """Numbers of documents on which any decision differs from datatrove's."""
    theirs = [json.loads(line) for line in peer("decide", texts, folder).splitlines()]
    ours = list(decisions(texts))
    return [number for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)) if mine != other]


def beside_peer(texts: list[str], folder: Path, rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Ratios of the chain and the figures behind them."""
    megabytes = _megabytes(texts)
    cold, hot, theirs = [], [], []
    worker("chain", texts, folder)  # compiles what is not compiled yet
    for _ in range(rounds):
        first, second = worker("chain", texts, folder)["chain"]
        cold.append(first)
        hot.append(second)
        theirs.append(json.loads(peer("chain", texts, folder))["seconds"]["chain"])
    fewer = texts[::4]
    said = json.loads(peer("alone", fewer, folder))
    ours = {name: passes[1] for name, passes in worker("alone", fewer, folder).items()}
    seconds = {"cold": statistics.median(cold), "hot": statistics.median(hot), "datatrove": statistics.median(theirs)}
    ratios = {f"chain_{name}": seconds["datatrove"] / seconds[name] for name in ("cold", "hot")}
    return ratios, {
        "chain_mb": round(megabytes, 2),
        "chain_mb_per_s": {name: round(megabytes / value, 2) for name, value in seconds.items()},
        "alone_mb_per_s": {
            name: {
                "treadle": round(_megabytes(fewer) / ours[name], 2),
                "datatrove": round(_megabytes(fewer) / said["seconds"][name], 2),
            }
            for name in NAMES
        },
        "versions": versions(("treadle", "numba", "numpy")) | {name: said[name] for name in ("datatrove", "spacy")},
    }


def pipeline(texts: list[str]) -> dict[str, float]:
    """MB/s of the transforms as ``prepare`` runs them."""
    transforms = load_transforms(list(NAMES), None)
    batch = [
        Document(document_id("made", str(number), b""), "made", str(number), text) for number, text in enumerate(texts)
    ]
    found = {}
    for name, executor in (("process", InProcess()), ("pool", Pool())):
        seconds = 0.0
        for _ in range(2):
            began = time.perf_counter()
            for _ in run_transforms([batch], transforms, Accounting(), executor.map):
                pass
            seconds = time.perf_counter() - began
        executor.close()
        found[name] = round(_megabytes(texts) / seconds, 2)
    return found


def peer(task: str, texts: list[str], folder: Path) -> str:
    """What datatrove's environment prints for a task."""
    script = Path(__file__).with_name("data_filters_peer.py")
    command = [str(PEER / "bin" / "python"), str(script), task, str(_written(texts, folder))]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def worker(task: str, texts: list[str], folder: Path) -> dict[str, list[float]]:
    """Processor seconds of two passes of ours in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data_filters", "--worker", task, str(_written(texts, folder))]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout))


def work(task: str, path: str) -> None:
    """What a worker does: the chain, or each filter alone, twice."""
    texts = [json.loads(line) for line in Path(path).read_text("ascii").splitlines()]
    four = judges()
    for judge in four.values():
        judge("A first text loads what is loaded on first use. " * 20)
    runs = {"chain": list(four.values())} if task == "chain" else {name: [judge] for name, judge in four.items()}
    print(json.dumps({name: [_pass(chosen, texts) for _ in range(2)] for name, chosen in runs.items()}))


def _pass(chosen: list[Judge], texts: list[str]) -> float:
    began = time.process_time()
    for text in texts:
        left = text
        for judge in chosen:
            reason, left = judge(left)
            if reason is not None:
                break
    return time.process_time() - began


def _answer(reason: str | None, text: str) -> list[str | None]:
    return [reason, None if reason else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()]


def _written(texts: list[str], folder: Path) -> Path:
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in texts), "ascii")
    return path


def _megabytes(texts: list[str]) -> float:
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / 1e6


if __name__ == "__main__":
    main()
