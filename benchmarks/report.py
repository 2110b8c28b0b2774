"""The last line of every benchmark; ``docs/benchmarks.md`` shows what is kept of it in ``benchmarks/results``."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any


def print_report(benchmark: str, ratios: Mapping[str, float], figures: Mapping[str, Any]) -> None:
    """One JSON document on one line; a ratio above 1 means ours is better."""
    rounded = {name: round(value, 3) for name, value in ratios.items()}
    report = {"benchmark": benchmark, "date": time.strftime("%Y-%m-%d"), "ratios": rounded, "figures": dict(figures)}
    print(json.dumps(report))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """What was measured, and on what; packages that are not installed are left out."""
    found = {"python": platform.python_version(), "cpus": str(os.cpu_count())}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
