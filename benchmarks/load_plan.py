"""A plan for ten thousand requests a second, and a replay of it: ``python -m benchmarks.load_plan [--quick]``.

``treadle load --plan`` is asked for the Azure conversation trace with as many times the requests as make ten thousand a
second on average, cut and served as in ``benchmarks.load``. It measures this one server, says how many of them it takes
to keep the objective and what they cost at ``PRICE`` an hour (about what clouds ask for two cores), and replays ten
minutes of one server's part (a quarter of one with ``--quick``): what was planned stands beside what was measured.

``off_total_p95``, ``off_ttft_p95``: measured over planned; 1 would be a plan that comes true.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.load import ANSWER, PROMPT, TRACE
from benchmarks.report import print_report, versions
from benchmarks.serve import prepare, serve_engine
from benchmarks.server import worker
from treadle.loading.trace import read_trace

RATE = 10_000  # requests a second
SLO = "ttft=4s,total=20s"
PRICE = 0.10


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="A plan for ten thousand requests a second.")
    parser.add_argument("--quick", action="store_true", help="two minutes of the trace, and a short replay")
    quick = parser.parse_args().quick
    before = os.getloadavg()[0]
    trace = read_trace(TRACE)
    times = RATE * trace[-1].at / len(trace)
    with tempfile.TemporaryDirectory() as scratch:
        folder = prepare(Path(scratch, "model"))
        with worker(serve_engine, folder) as (url, _):
            found = planned(url, times, "15s" if quick else "10m", ["--for", "2m"] if quick else [])
    figures = told(found) | {"load_before": round(before, 2), "versions": versions(("openvino-genai", "uvicorn"))}
    print_report("load_plan", {}, figures)


def planned(url: str, times: float, check: str, more: list[str]) -> dict[str, Any]:
    """What the command says."""
    size = ("--prompt-tokens", str(PROMPT), "--answer-tokens", str(ANSWER))
    asked = ("--plan", str(TRACE), "--times", f"{times:.6g}", "--slo", SLO, "--price", str(PRICE), "--check", check)
    command = [sys.executable, "-m", "treadle", "load", url, *asked, *size, *more, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    said: dict[str, Any] = json.loads(done.stdout)
    plan: dict[str, Any] = said["plan"]
    return plan


def told(found: dict[str, Any]) -> dict[str, Any]:
    """The figures of a plan."""
    check = found["check"]
    return {
        "requests_per_second": found["requests_per_second"],
        "slo": found["slo"],
        "replicas": found["replicas"],
        "cells": found["cells"],
        "cost": found["cost"],
        "share": found["share"],
        "tokens_per_second_at": {str(level["at_once"]): level["tokens_per_second"] for level in found["curve"]},
        "ttft_ms_at": {str(level["at_once"]): round(level["ttft"] * 1e3, 1) for level in found["curve"]},
        "check_requests": check["requests"],
        "check_errors": sum(check["errors"].values()),
        **{name: {what: _short(check[name][what]) for what in ("ttft", "total")} for name in ("planned", "measured")},
        **{f"{name}_share": check[name]["share"] for name in ("planned", "measured")},
        **{f"off_{what}_p95": _off(check, what) for what in ("ttft", "total")},
    }


def _short(times: dict[str, float] | None) -> dict[str, float]:
    return {name: round(times[name], 3) for name in ("p50", "p95", "p99")} if times else {}


def _off(check: dict[str, Any], what: str) -> float | None:
    first, second = check["planned"][what], check["measured"][what]
    return round(second["p95"] / first["p95"], 2) if first and second else None


if __name__ == "__main__":
    main()
