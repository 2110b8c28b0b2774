"""Reading documents: ``python -m benchmarks.formats [--quick]``.

Character accuracy by format (mean and median over the documents that come with their text), and HTML beside
trafilatura on the same pages, each in a process of its own and in turn: MB/s of a processor (its own time, not the
clock's), and F1 of the words on the pages with ground truth. Ours is measured twice: the reader alone, and as
``html_path_mb_per_s`` the whole way through the source ``files``, with its workers' time.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.accuracy import without_markdown, word_f1
from benchmarks.ground_truth import Case, cases, members
from benchmarks.report import print_report, versions

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TREADLE_TEST_DATA", ROOT.parent / "shared" / "data"))
PEER = ROOT / ".venv-peers" / "trafilatura"
_MEGABYTE = 1e6

THEIRS = """
import json, sys, time
from pathlib import Path
from importlib.metadata import version
import trafilatura
pages = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
began = time.process_time()
texts = [trafilatura.extract(page) or "" for page in pages]
print(json.dumps({"seconds": time.process_time() - began, "texts": texts, "version": version("trafilatura")}))
"""
OURS = """
import json, sys, time
from pathlib import Path
from treadle.text.readers import html
from treadle.text.readers.piece import Documents, UnreadableError
def text(page):
    try:
        return next(html.read(page, Documents())).text
    except UnreadableError:
        return ""
pages = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
text(pages[0])
began = time.process_time()
texts = [text(page) for page in pages]
print(json.dumps({"seconds": time.process_time() - began, "texts": texts}))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Reading documents.")
    parser.add_argument("--quick", action="store_true", help="fewer pages and rounds")
    arguments = parser.parse_args()
    make_peer()
    every = list(cases(DATA))
    accuracy = accuracies(every, quick=arguments.quick)
    for kind, each in accuracy.items():
        print(f"{kind:10} {each['documents']:4} documents  mean {each['mean']:.3f}  median {each['median']:.3f}")
    truth = [case for case in every if case.kind == "html" and case.markdown]
    ratios, figures = beside_peer(truth, rounds=1 if arguments.quick else 3)
    packages = ("treadle", "resiliparse", "pypdfium2", "lxml", "pylatexenc", "charset-normalizer")
    measured: dict[str, Any] = {**figures, "accuracy": accuracy, "load": round(os.getloadavg()[0], 1)}
    measured["versions"] = {**figures["versions"], **versions(packages)}
    print_report("formats", ratios, measured)


def accuracies(every: list[Case], *, quick: bool) -> dict[str, dict[str, float]]:
    """Mean and median by format; texts in many encodings are a format of their own."""
    found: dict[str, list[float]] = {}
    for number, case in enumerate(every):
        if quick and not case.markdown and number % 4:
            continue
        name = {"txt": "encodings"}.get(case.kind, case.kind if case.markdown else "html_udhr")
        found.setdefault(name, []).append(case.accuracy())
    return {
        name: {
            "documents": len(values),
            "mean": round(statistics.fmean(values), 4),
            "median": round(statistics.median(values), 4),
        }
        for name, values in sorted(found.items())
    }


def make_peer() -> None:
    """trafilatura in an environment of its own, made on first use."""
    if not (PEER / ".complete").exists():
        subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
        packages = ["trafilatura", "lxml_html_clean"]
        subprocess.run([str(PEER / "bin" / "pip"), "install", "--quiet", *packages], check=True)
        (PEER / ".complete").touch()


def beside_peer(truth: list[Case], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """``speed`` and ``f1`` (ours over theirs), and what they are made of."""
    expected = [without_markdown(case.expected) for case in truth]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pages = [case.data for case in truth] + real_pages()
        size = sum(map(len, pages)) / _MEGABYTE
        for number, page in enumerate(pages):
            (folder / f"{number:04}.html").write_bytes(page)
        ours: list[float] = []
        theirs: list[float] = []
        path: list[float] = []
        mine: dict[str, Any] = {}
        peers: dict[str, Any] = {}
        for _ in range(rounds):
            mine = child([sys.executable, "-c", OURS, name])
            peers = child([str(PEER / "bin" / "python"), "-c", THEIRS, name])
            ours.append(size / mine["seconds"])
            theirs.append(size / peers["seconds"])
            path.append(size / whole_way(folder))
    scores = {
        key: statistics.fmean(
            word_f1(without_markdown(text), wanted) for text, wanted in zip(found["texts"], expected, strict=False)
        )
        for key, found in (("ours", mine), ("theirs", peers))
    }
    speed = {"ours": statistics.median(ours), "theirs": statistics.median(theirs)}
    figures = {
        "html_mb": round(size, 1),
        "html_pages": len(pages),
        "html_pages_with_truth": len(truth),
        "mb_per_s": round(speed["ours"], 2),
        "html_path_mb_per_s": round(statistics.median(path), 2),
        "peer_mb_per_s": round(speed["theirs"], 2),
        "f1": round(scores["ours"], 4),
        "peer_f1": round(scores["theirs"], 4),
        "versions": {"trafilatura": peers["version"]},
    }
    return {"speed": speed["ours"] / speed["theirs"], "f1": scores["ours"] / scores["theirs"]}, figures


def real_pages() -> list[bytes]:
    """Pages without ground truth, for speed: the UDHR's and those of the crawls."""
    from treadle.text.readers.warc import Record, records

    folder = DATA / "6-pretraining-docs"
    pages = list(members(folder / "udhr_html.tar.gz").values())
    for name, data in members(folder / "warc_resiliparse.tar.gz").items():
        if name.endswith("warcfile.warc"):
            found = records(io.BytesIO(data), 100_000_000)
            pages += [each.body for each in found if isinstance(each, Record) and each.kind == "html"]
    return pages


def child(command: list[str]) -> dict[str, Any]:
    """The last line of a process as JSON."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def whole_way(folder: Path) -> float:
    """Seconds of a processor, the workers' too, that ``files`` takes for the pages."""
    from treadle.text.files_source import Files
    from treadle.text.source import SourceContext

    source = Files(path=f"{folder}/*.html", context=SourceContext(folder, str))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.process_time()
    for _ in source.read():
        pass
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() - began + after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
