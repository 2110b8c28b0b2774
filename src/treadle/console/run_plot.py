"""Runs side by side as one page that needs nothing else: a chart for each metric with a curve for each run, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from treadle.console.charts import Curves, Points, curves
from treadle.console.pages.run import points_of
from treadle.core.runs import SYSTEM, RunRecord
from treadle.record.record import Record

MOST_RUNS = 40  # with curves; all are in the table
_COLORS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#65a30d")
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2")
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5c6675;--line:#d9dee6;--page:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaf0;--soft:#9aa5b5;--line:#333c4a;--page:#12161d}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:2rem auto;max-width:76rem;
padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}.grid{display:grid;gap:1.2rem;
grid-template-columns:repeat(auto-fit,minmax(26rem,1fr))}
figure{margin:0}figcaption{font-weight:600;margin-bottom:.3rem}svg{width:100%;height:auto;overflow:visible}
svg text{font-size:10px;fill:var(--soft)}polyline{fill:none;stroke-width:1.6;vector-effect:non-scaling-stroke}
.axis{stroke:var(--line);stroke-width:1}.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{text-align:right;padding:.3rem .7rem;
border-bottom:1px solid var(--line);white-space:nowrap}th:first-child,td:first-child{text-align:left}
th{color:var(--soft);font-weight:600}.key{display:inline-block;width:1.6rem;height:.6rem;margin-right:.5rem}
.soft{color:var(--soft)}
"""


def page(record: Record, runs: Sequence[RunRecord], title: str) -> str:
    """HTML without scripts and without references to anything outside it."""
    drawn = runs[:MOST_RUNS]
    styles = {run.id: _style(place) for place, run in enumerate(drawn)}
    series: dict[str, dict[str, Points]] = {}
    for run in drawn:
        for metric, points in points_of(record, run.id).items():
            if not metric.startswith(SYSTEM):
                series.setdefault(metric, {})[run.id] = points
    names = {run.id: f"{run.step} {run.id[-6:]}" for run in runs}
    figures = [_figure(metric, found, styles, names) for metric, found in sorted(series.items())]
    rest = f" Curves of the first {MOST_RUNS}." if len(runs) > MOST_RUNS else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f'<h1>{escape(title)}</h1><p class="soft">{len(runs):,} runs.{rest}</p>'
        f'<div class="grid">{"".join(figures)}</div><h2>Side by side</h2>'
        f'<div class="scroll">{_table(runs, styles, names)}</div></body></html>\n'
    )


def _style(place: int) -> str:
    dash = _DASHES[place // len(_COLORS) % len(_DASHES)]
    return f"stroke:{_COLORS[place % len(_COLORS)]}" + (f";stroke-dasharray:{dash}" if dash else "")


def _figure(metric: str, series: Mapping[str, Points], styles: Mapping[str, str], names: Mapping[str, str]) -> str:
    found = curves(series, width=460, height=190)
    if found is None:
        return ""
    lines = "".join(
        f'<polyline points="{line.points}" style="{styles[line.name]}">'
        f"<title>{escape(names[line.name])}: {line.last:g}</title></polyline>"
        for line in found.lines
    )
    label = escape(f"{metric} of {len(found.lines)} runs over their steps")
    return (
        f"<figure><figcaption>{escape(metric)}</figcaption>"
        f'<svg viewBox="-44 -8 {found.width + 56} {found.height + 28}" role="img" aria-label="{label}">'
        f"{_axes(found)}{lines}</svg></figure>"
    )


def _axes(found: Curves) -> str:
    across = "".join(
        f'<line class="axis" x1="0" x2="{found.width}" y1="{tick.at}" y2="{tick.at}"/>'
        f'<text x="-6" y="{tick.at + 3}" text-anchor="end">{escape(tick.label)}</text>'
        for tick in found.y
    )
    along = "".join(
        f'<text x="{tick.at}" y="{found.height + 14}" text-anchor="middle">{escape(tick.label)}</text>'
        for tick in found.x
    )
    return across + along


def _table(runs: Sequence[RunRecord], styles: Mapping[str, str], names: Mapping[str, str]) -> str:
    """A row for each run; settings that are the same in all of them are left out."""
    settings = [name for name in _names([run.parameters for run in runs]) if _differs(name, runs)]
    metrics = _names([run.metrics for run in runs])
    head = "".join(f"<th>{escape(name)}</th>" for name in ("run", "status", "seconds", *settings, *metrics))
    rows = []
    for run in runs:
        seconds = "" if run.seconds is None else f"{run.seconds:.1f}"
        values = [run.status, seconds, *(_cell(run.parameters.get(name)) for name in settings)]
        values += [_cell(run.metrics.get(name)) for name in metrics]
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        rows.append(
            f'<tr><td title="{escape(run.id)}">{_key(styles.get(run.id))}{escape(names[run.id])}</td>{cells}</tr>'
        )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _key(style: str | None) -> str:
    if style is None:
        return ""
    return (
        f'<svg class="key" viewBox="0 0 26 10" aria-hidden="true"><polyline points="0,5 26,5" style="{style}"/></svg>'
    )


def _names(found: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({name for each in found for name in each})


def _differs(name: str, runs: Sequence[RunRecord]) -> bool:
    return len({repr(run.parameters.get(name)) for run in runs}) > 1 or len(runs) == 1


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)[:60]
