"""The console's pages with a long history behind them: ``python -m benchmarks.console [--quick]``.

10,000 runs and 1,000,000 interactions (``--quick``: 1,000 and 50,000) are written once, by the code that writes real
ones, and kept in the folder for temporary files. Then ``treadle console`` runs as a process of its own; each page is
asked for over HTTP again and again, in turn, and an interaction is recorded before each request, so that no page can
live on what was known before. What is measured is the server's time, as its ``Server-Timing`` header gives it: the
page found out, drawn and ready to send.

``page_budget``: 150 ms divided by the slowest page's 95th percentile; there is no peer that has these pages. For scale:
MLflow's search among as many runs takes 2.4 s.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from benchmarks.console_project import FULL, QUICK, Traffic, built
from benchmarks.report import percentile, print_report, versions
from treadle.project import open_project
from treadle.record.interaction_index import InteractionFilter
from treadle.record.record import Record

BUDGET_MS = 150.0
_TIMING = re.compile(r"app;dur=([0-9.]+)")
_ASSET = re.compile(rb'(?:href|src)="(/[^"]*static/[^"]+)"')


def main() -> None:
    """Build, measure and print."""
    parser = argparse.ArgumentParser(description="The console's pages with a long history.")
    parser.add_argument("--quick", action="store_true", help="a smaller history, within 60 seconds")
    quick = parser.parse_args().quick
    size = QUICK if quick else FULL
    folder = built(size)
    figures: dict[str, Any] = {"runs": size.runs, "interactions": size.interactions, **made_index(folder)}
    with open_project(folder) as project, console(folder) as browser:
        record = project.record
        pages = pages_of(record)
        first = browser.get("/")
        assets = {bytes(name) for name in _ASSET.findall(first.body)}
        sizes = [len(first.body), *(len(browser.get(name.decode()).body) for name in assets)]
        figures["first_page_kb"] = round(sum(sizes) / 1000, 1)
        measured = measure(record, browser, pages, 21 if quick else 60)
    p95 = {name: round(percentile(values, 95), 1) for name, values in measured.items()}
    slowest = max(p95, key=lambda name: p95[name])
    everything = [value for values in measured.values() for value in values]
    figures |= {"p50_ms": round(percentile(everything, 50), 1), "p95_ms": round(percentile(everything, 95), 1)}
    figures |= {"slowest_page": slowest, "slowest_p95_ms": p95[slowest], "pages_p95_ms": p95}
    figures["versions"] = versions(("starlette", "jinja2", "uvicorn"))
    print_report("console", {"page_budget": BUDGET_MS / p95[slowest]}, figures)


def made_index(folder: Path) -> dict[str, float]:
    """Seconds in which the index of interactions is made from nothing, and megabytes of its file."""
    cache = folder / ".treadle" / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    with open_project(folder) as project:
        started = time.perf_counter()
        project.record.interactions.catch_up()
        seconds = time.perf_counter() - started
    return {
        "index_seconds": round(seconds, 1),
        "index_mb": round(sum(path.stat().st_size for path in cache.iterdir()) / 1e6, 1),
    }


def pages_of(record: Record) -> dict[str, str]:
    """What is measured, by name."""
    index = record.interactions
    newest = index.page(InteractionFilter(origin="traffic")).rows[0]
    some_time_ago = (datetime.now(UTC) - timedelta(days=15)).isoformat(timespec="seconds").replace("+00:00", "Z")
    middle = index.page(InteractionFilter(origin="traffic", until=some_time_ago))
    number = record.versions.all("model")[-1].number
    runs = [run.id for run in record.runs.find(step="develop.train", limit=6)]
    release = newest.release
    corpus = record.runs.find(step="collect.gather", limit=2)[-1].outputs["corpus"]
    return {
        "status": "/",
        "runs": "/runs",
        "runs by status": "/runs?status=failed",
        "runs of a step": "/runs?step=develop.train",
        "runs searched": "/runs?q=17000",
        "runs by metric": "/runs?sort=metric&metric=loss",
        "runs by a filter": f"/runs?where={quote('metrics.loss < 4 and seconds > 0')}&sort=lowest&by=metrics.loss",
        "runs by a fact": "/runs?where=" + quote("kind = 'step' and seed = 17"),
        "runs by duration": "/runs?sort=longest",
        "runs, a late page": f"/runs?start={len(record.versions.all('model')) * 5}",
        "run": f"/runs/{runs[0]}",
        "compare runs": f"/compare?a={runs[0]}&b={runs[1]}",
        "compare several runs": f"/compare/runs?run={','.join(runs[:6])}",
        "compare versions": f"/compare?a=model@v{number - 1}&b=model@v{number}",
        "interactions": "/interactions",
        "interactions that failed": "/interactions?status=failed",
        "interactions rated down": "/interactions?rating=down",
        "interactions of a release": f"/interactions?release={quote(release)}&rating=corrected",
        "interactions of a person": f"/interactions?user={quote(newest.user or '')}",
        "interactions of a time": f"/interactions?until={quote(some_time_ago)}",
        "interactions, a late page": f"/interactions?before={middle.next}",
        "interactions with a text": f"/interactions?text={quote('sorted')}",
        "interactions with a text that is nowhere": "/interactions?text=zzqq",
        "interaction": f"/interactions/{newest.id}",
        "interaction of long ago": f"/interactions/{middle.rows[0].id}",
        "lineage of an answer": f"/lineage?ref={newest.id}",
        "lineage of a version": f"/lineage?ref=model@v{number}",
        "lineage down from a release": f"/lineage?ref={quote(release)}&way=down",
        "lineage down from a corpus": f"/lineage?ref={quote(corpus)}&way=down",
        "lineage down from a document": f"/lineage?ref={quote(_document(record, corpus))}&way=down",
        "review": "/review",
        "approvals": "/approvals",
        "approval": f"/approvals/{number}",
        "interactions as JSON": "/interactions?format=json",
        "status as JSON": "/?format=json",
    }


def _document(record: Record, corpus: str) -> str:
    from treadle.core.artifacts import Artifact

    return Artifact(corpus, record.store).document_ids()[0]


def measure(record: Record, browser: Browser, pages: dict[str, str], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each page, one after the other in each round."""
    traffic = Traffic(record, random.Random(2), [record.versions.served() or "b3:" + "0" * 64])
    for path in pages.values():
        browser.get(path)
    measured: dict[str, list[float]] = {name: [] for name in pages}
    for _ in range(rounds):
        for name, path in pages.items():
            record.recorder.interaction(traffic.interaction(datetime.now(UTC), traffic.releases[0]))
            measured[name].append(browser.get(path).milliseconds)
    return measured


class Answer:
    """What came back, and the server's time for it."""

    def __init__(self, body: bytes, milliseconds: float) -> None:
        self.body = body
        self.milliseconds = milliseconds


class Browser:
    """One connection with the cookie of somebody who came in by a link."""

    def __init__(self, link: str) -> None:
        parts = urlsplit(link)
        assert parts.hostname is not None
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)
        self._connection.request("GET", f"{parts.path}?{parts.query}")
        response = self._connection.getresponse()
        response.read()
        cookies = response.headers.get_all("Set-Cookie") or []
        self._headers = {"Cookie": "; ".join(cookie.partition(";")[0] for cookie in cookies), "Accept": "text/html"}

    def get(self, path: str) -> Answer:
        """Ask for a page; anything but a page is an error."""
        self._connection.request("GET", path, headers=self._headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {body[:2000].decode(errors='replace')}")
        timing = _TIMING.search(response.headers.get("Server-Timing", ""))
        return Answer(body, float(timing[1]) if timing else 0.0)


@contextmanager
def console(folder: Path) -> Iterator[Browser]:
    """``treadle console``, as a person starts it."""
    command = [sys.executable, "-m", "treadle", "-C", str(folder), "console", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            yield Browser(next(iter(told["links"].values())))
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
