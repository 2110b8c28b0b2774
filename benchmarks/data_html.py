"""HTML to its main text beside trafilatura: ``python -m benchmarks.data_html [--quick]``.

Both read the same pages, bytes to text, each in a process of its own and in turn; MB/s are of a processor (its own
time, not the clock's), after one page that is not counted, and the median of the rounds. ``path_mb_per_s`` is ours the
whole way through the source ``files``, with the time of its workers.

``f1`` is that of the words, a mean over the pages that come with their text (docling's). All but one are small and
have little around their main text, and the text of that one (an article of Wikipedia) holds its navigation too, so this
says little about what is left out. ``pages_better`` and ``pages_worse`` say on how many ours is nearer or farther than
trafilatura, ``worst`` names where it is farthest behind. ``declarations_f1`` is over pages that are main text from end
to end (the UDHR's), for which the text is what the standard library's parser reads. trafilatura has its default
settings; ``favor_recall`` and ``favor_precision`` come no nearer to these texts.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy import without_markdown, word_f1
from benchmarks.ground_truth import Case, cases, members
from benchmarks.peers import PEERS, environment
from benchmarks.report import print_report, versions

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TREADLE_TEST_DATA", ROOT.parent / "shared" / "data"))
PEER = PEERS / "trafilatura"
ROUNDS = 5
_MEGABYTE = 1e6

THEIRS = """
import json, sys, time
from pathlib import Path
from importlib.metadata import version
import trafilatura
pages = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
trafilatura.extract(pages[0])
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
    parser = argparse.ArgumentParser(description="HTML to its main text beside trafilatura.")
    parser.add_argument("--quick", action="store_true", help="one round, within 30 seconds")
    rounds = 1 if parser.parse_args().quick else ROUNDS
    make_peer()
    ratios, figures = beside_peer([case for case in cases(DATA) if case.kind == "html"], rounds)
    print_report("data_html", ratios, figures | {"load": round(os.getloadavg()[0], 1)})


def make_peer() -> None:
    """trafilatura in an environment of its own, made on first use."""
    environment("trafilatura", "trafilatura", "lxml_html_clean")


def beside_peer(truth: Sequence[Case], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """``speed`` and ``f1`` (ours over theirs), and what they are made of."""
    pages = [case.data for case in truth] + crawled_pages()
    size = sum(map(len, pages)) / _MEGABYTE
    speeds: dict[str, list[float]] = {"ours": [], "theirs": [], "path": []}
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="treadle-html-") as name:
        for number, page in enumerate(pages):
            (Path(name) / f"{number:04}.html").write_bytes(page)
        for _ in range(rounds):
            ours = child([sys.executable, "-c", OURS, name])
            theirs = child([str(PEER / "bin" / "python"), "-c", THEIRS, name])
            speeds["ours"].append(size / ours["seconds"])
            speeds["theirs"].append(size / theirs["seconds"])
            speeds["path"].append(size / whole_way(Path(name)))
    speed = {name: statistics.median(values) for name, values in speeds.items()}
    near = nearness(truth, ours["texts"], theirs["texts"])
    figures = {
        "mb_per_s": round(speed["ours"], 2),
        "path_mb_per_s": round(speed["path"], 2),
        "peer_mb_per_s": round(speed["theirs"], 2),
        "mb": round(size, 1),
        "pages": len(pages),
        **near,
        "versions": versions(("treadle", "resiliparse")) | {"trafilatura": theirs["version"]},
    }
    return {"speed": speed["ours"] / speed["theirs"], "f1": near["f1"] / near["peer_f1"]}, figures


def nearness(truth: Sequence[Case], ours: Sequence[str], theirs: Sequence[str]) -> dict[str, Any]:
    """How near both come to the texts; a text for each of ``truth``, what follows those is left out."""
    scores: dict[bool, list[tuple[float, float, str]]] = {True: [], False: []}
    for case, mine, other in zip(truth, ours, theirs, strict=False):
        wanted = without_markdown(case.expected)
        pair = [word_f1(without_markdown(text), wanted) for text in (mine, other)]
        scores[case.markdown].append((pair[0], pair[1], case.name))
    pages, declarations = scores[True], scores[False]
    worst = max(pages, key=lambda page: page[1] - page[0])
    return {
        "f1": round(statistics.fmean(page[0] for page in pages), 4),
        "peer_f1": round(statistics.fmean(page[1] for page in pages), 4),
        "pages_with_truth": len(pages),
        "pages_better": sum(page[0] > page[1] for page in pages),
        "pages_worse": sum(page[0] < page[1] for page in pages),
        "worst": {"page": worst[2], "f1": round(worst[0], 4), "peer_f1": round(worst[1], 4)},
        "declarations": len(declarations),
        "declarations_f1": round(statistics.fmean(page[0] for page in declarations), 4),
        "peer_declarations_f1": round(statistics.fmean(page[1] for page in declarations), 4),
    }


def crawled_pages() -> list[bytes]:
    """Pages of the crawls: without ground truth, for speed."""
    from treadle.text.readers.warc import Record, records

    pages: list[bytes] = []
    for name, data in members(DATA / "6-pretraining-docs" / "warc_resiliparse.tar.gz").items():
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
