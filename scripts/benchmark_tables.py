"""The tables of ``docs/benchmarks.md``, from the reports in ``benchmarks/results``; ``reference.py`` puts them there.

A report is the last line of a benchmark, as it was: ``python -m benchmarks.store | tail -n 1 >
benchmarks/results/store.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
_OURS = ("treadle", "python", "cpus")


def benchmark(name: str) -> Iterator[str]:
    """The command, what was measured on, and the numbers; or that there are none yet."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        yield f"Not measured yet: `python -m benchmarks.{name}`."
        return
    report = json.loads(path.read_text(encoding="utf-8"))
    figures = dict(report["figures"])
    found = figures.pop("versions", {})
    peers = ", ".join(f"{package} {version}" for package, version in found.items() if package not in _OURS)
    machine = f"Python {found['python']}, {found['cpus']} cores" if found else ""
    said = ", ".join(part for part in (report["date"], machine, peers) if part)
    yield f"`python -m benchmarks.{report['benchmark']}`, {said}"
    yield ""
    if report["ratios"]:
        yield "| against the peer | times as good |"
        yield "|---|---|"
        yield from (f"| `{key}` | {_number(value)} |" for key, value in report["ratios"].items())
        yield ""
    yield "| figure | |"
    yield "|---|---|"
    yield from (f"| `{key}` | {value} |" for key, value in _flat(figures))


def tasks() -> Iterator[str]:
    """What a model of each task scores beside its baselines, from ``results/tasks``: a row a metric."""
    yield "| task | on | metric | items | model | beside it |"
    yield "|---|---|---|---|---|---|"
    for path in sorted((RESULTS / "tasks").glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        scores = report["scores"]
        for metric, found in scores["model"].items():
            others = {which: each[metric] for which, each in scores.items() if which != "model" and metric in each}
            beside = ", ".join(f"{which.replace('_', ' ')} {_interval(each)}" for which, each in others.items())
            on = f"{report['task']} | {report['about']} | `{metric}`"
            yield f"| {on} | {found['n']:,} | {_interval(found)} | {beside} |"


def targets() -> Iterator[str]:
    """What was seen of each release target, from ``results/targets``, and what was not, as `treadle doctor` says it."""
    from treadle.core.plugins import names
    from treadle.doctor import TARGETS, not_exercised

    yield "| target | files checked by | answered on | same text | digest verified | not exercised |"
    yield "|---|---|---|---|---|---|"
    for name in names(TARGETS):
        path = RESULTS / "targets" / f"{name}.json"
        seen = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        said = [_yes(seen.get("same_text")), _yes(seen.get("digest"))]
        cells = [f"`{name}`", seen.get("validated") or "nothing", seen.get("ran") or "nothing", *said]
        yield f"| {' | '.join([*cells, not_exercised(name)])} |"


def _yes(value: bool | None) -> str:
    return "not run" if value is None else "yes" if value else "no"


def _interval(score: Mapping[str, Any]) -> str:
    return f"{score['value']:.3g} [{score['low']:.3g}, {score['high']:.3g}]"


def _flat(figures: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}: ")
        elif isinstance(value, list):
            yield f"{before}{key}", ", ".join(map(_number, value))
        else:
            yield f"{before}{key}", _number(value)


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).replace("|", "\\|")
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
