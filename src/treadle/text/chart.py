"""Charts as SVG that takes its colors from the page around it, so it is right in light and in dark.

Charts are Vega-Lite, drawn by vl-convert without a browser, a network or a script in the result. Data is counted here
first: what is drawn has tens of marks however many texts there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from treadle.core.errors import MissingExtra

WIDTH = 780  # pixels; the page shows it smaller where there is less room
_MAX_BARS = 14
_BINS = 36
_LABEL = 40  # characters of a bar's label

# Stand-ins that the page's style sheet turns into its own colors (see ``COLOR_CSS``).
INK, FAINT, ACCENT, SECOND, THIRD, WARN = ("#010101", "#010102", "#010103", "#010104", "#010105", "#010106")
SERIES = (ACCENT, SECOND, THIRD, WARN)
_VARIABLES = {INK: "ink", FAINT: "line", ACCENT: "accent", SECOND: "second", THIRD: "third", WARN: "warn"}
COLOR_CSS = "\n".join(
    f'svg [fill="{color}"]{{fill:var(--{name})}} svg [stroke="{color}"]{{stroke:var(--{name})}}'
    for color, name in _VARIABLES.items()
)


def bars(counts: Mapping[str, int], *, title: str, color: str = ACCENT) -> str:
    """Horizontal bars, largest first; all beyond the first few become one bar, with its count of values."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    shown, rest = ordered[:_MAX_BARS], ordered[_MAX_BARS:]
    rows: list[dict[str, Any]] = [
        {"label": _short(name, place, shown), "n": n} for place, (name, n) in enumerate(shown)
    ]
    if rest:
        rows.append({"label": f"{len(rest):,} others", "n": sum(n for _, n in rest)})
    y = {"field": "label", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 260}}
    longest = max((row["n"] for row in rows), default=1)
    layers = [
        {"mark": {"type": "bar", "color": color, "cornerRadiusEnd": 3, "height": {"band": 0.72}}},
        {
            "mark": {"type": "text", "align": "left", "dx": 5, "color": INK},
            "encoding": {"text": {"field": "n", "type": "quantitative", "format": ",d"}},
        },
    ]
    x = {"field": "n", "type": "quantitative", "axis": None, "scale": {"domain": [0, longest * 1.12]}}
    encoding = {"y": y, "x": x}
    return _draw({"layer": layers, "encoding": encoding, "height": {"step": 24}}, rows, title)


def histogram(series: Mapping[str, Sequence[float]], *, title: str, unit: str, log: bool = True) -> str:
    """How often each size occurs, one line a series, as shares of that series so that they compare.

    With ``log`` the bins grow with the size, which suits lengths.
    """
    import numpy as np

    values = {name: np.asarray(list(found), dtype=np.float64) for name, found in series.items() if len(found)}
    if not values:
        return ""
    low = max(min(float(found.min()) for found in values.values()), 1.0 if log else -np.inf)
    high = max(low + 1, *(float(found.max()) for found in values.values()))
    edges = np.geomspace(low, high, _BINS + 1) if log else np.linspace(low, high, _BINS + 1)
    rows = []
    for name, found in values.items():
        counts, _ = np.histogram(np.clip(found, low, high), edges)
        for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
            rows.append({"series": name, "left": left, "right": right, "share": float(count / len(found))})
    scale: dict[str, Any] = {"type": "log"} if log else {"zero": False}
    one = len(values) == 1
    encoding: dict[str, Any] = {
        "x": {
            "field": "left",
            "type": "quantitative",
            "title": unit,
            "scale": {**scale, "domain": [float(edges[0]), float(edges[-1])]},
            "axis": {"tickCount": 6, "format": "~s", "grid": False},
        },
        "y": {"field": "share", "type": "quantitative", "title": None, "axis": {"format": ".0%", "tickCount": 4}},
    }
    if one:
        mark: dict[str, Any] = {"type": "bar", "color": ACCENT, "binSpacing": 1}
        encoding["x"]["bin"] = "binned"
        encoding["x2"] = {"field": "right"}
    else:
        mark = {"type": "line", "interpolate": "monotone", "strokeWidth": 2}
        encoding["color"] = _colors(list(values))
    return _draw({"mark": mark, "encoding": encoding, "height": 180}, rows, title)


def columns(counts: Mapping[str, int], *, title: str) -> str:
    """Counts along an axis of their own order: years, months."""
    rows = [{"label": name, "n": n} for name, n in sorted(counts.items())]
    step = max(1, len(rows) // 12)
    axis = {"labelAngle": 0, "values": [row["label"] for row in rows[::step]]}
    encoding = {
        "x": {"field": "label", "type": "ordinal", "title": None, "axis": axis},
        "y": {"field": "n", "type": "quantitative", "title": None, "axis": {"tickCount": 4, "format": "~s"}},
    }
    return _draw({"mark": {"type": "bar", "color": ACCENT}, "encoding": encoding, "height": 160}, rows, title)


def stacked(rows_of: Mapping[str, Mapping[str, int]], *, title: str, series: Mapping[str, str]) -> str:
    """One bar a row, cut into ``series`` (name to color): what became of everything at each stage."""
    rows = [
        {"row": printable(row), "series": name, "order": place, "n": counts.get(name, 0)}
        for row, counts in rows_of.items()
        for place, name in enumerate(series)
    ]
    encoding = {
        "y": {"field": "row", "type": "nominal", "sort": [printable(row) for row in rows_of], "title": None},
        "x": {"field": "n", "type": "quantitative", "title": None, "axis": {"tickCount": 5, "format": "~s"}},
        "color": _colors(list(series), list(series.values())),
        "order": {"field": "order"},
    }
    return _draw(
        {"mark": {"type": "bar", "height": {"band": 0.7}}, "encoding": encoding, "height": {"step": 34}}, rows, title
    )


def _colors(names: Sequence[str], colors: Sequence[str] = SERIES) -> dict[str, Any]:
    used = [colors[place % len(colors)] for place in range(len(names))]
    legend = {"title": None, "orient": "top", "symbolType": "square", "labelLimit": 200}
    return {"field": "series", "type": "nominal", "scale": {"domain": list(names), "range": used}, "legend": legend}


def _draw(spec: dict[str, Any], rows: Sequence[Mapping[str, Any]], title: str) -> str:
    if not rows:
        return ""
    try:
        import vl_convert
    except ImportError:
        raise MissingExtra("vl-convert-python", extra="data") from None
    axis = {"labelColor": INK, "titleColor": INK, "domainColor": FAINT, "tickColor": FAINT, "gridColor": FAINT}
    look = {
        "background": None,
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": {**axis, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
        "axisY": {"domain": False, "ticks": False, "labelPadding": 6},
        "legend": {"labelColor": INK, "labelFontSize": 12},
        "text": {"fontSize": 12},
    }
    whole = {
        "data": {"values": list(rows)},
        "width": WIDTH,
        "padding": 4,
        "autosize": {"type": "fit-x", "contains": "padding"},
        **spec,
        "config": look,
    }
    svg = str(vl_convert.vegalite_to_svg(whole))
    name = re.sub(r"\W+", "-", title.casefold())
    # Ids are the page's, so each drawing gets its own; the size is the page's to choose.
    svg = re.sub(r'(id="|url\(#)(\w)', rf"\g<1>{name}-\g<2>", svg)
    return re.sub(r'<svg ([^>]*?)width="[\d.]+" height="[\d.]+"', r'<svg role="img" \1', svg, count=1)


def printable(text: str, keep: str = "") -> str:
    """The text with every control, direction mark and broken character replaced, but for those of ``keep``.

    They could hide or reorder what a reader sees, and some of them end the process inside the renderer.
    """
    return "".join(mark if mark.isprintable() or mark in keep else "\ufffd" for mark in text)


def _short(name: str, place: int, shown: Sequence[tuple[str, int]]) -> str:
    """A label that fits, and differs from the others that were cut like it."""
    name = printable(name)
    cut = name if len(name) <= _LABEL else name[: _LABEL - 1] + "…"
    before = sum(1 for other, _ in shown[:place] if printable(other)[: _LABEL - 1] == name[: _LABEL - 1])
    return cut if not before else f"{cut} ({before + 1})"
