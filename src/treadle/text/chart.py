"""Charts as HTML and SVG that take their colors from the page around them, so they are right in light and in dark.

Bars are rows of a table, so they read without eyes and can be linked; what needs a plane is SVG, with the numbers in a
table beside it. Data is counted before: what is drawn has tens of marks however many texts there are.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_MAX_BARS = 14
_LABEL = 44  # characters of a bar's label
_WIDE, _HIGH = 900, 230  # of a drawing, in its own units; the page shows it smaller where there is less room
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 34
_MARKS = "\n\t\u00a0\u200c\u200d"  # not printable by themselves, and harmless: spaces and joiners
SERIES = ("accent", "second", "third", "warn")

Points = Sequence[tuple[float, float]]


def bars(
    counts: Mapping[str, int],
    *,
    title: str,
    color: str = "accent",
    links: Mapping[str, str] | None = None,
    most: int = _MAX_BARS,
    others: int = 0,
) -> str:
    """A table of bars, largest first; all beyond the first few become one, with its count of values.

    ``links`` maps names to places in the page; ``others`` counts what is not in ``counts`` any more.
    """
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    if not ordered:
        return ""
    shown, rest = ordered[:most], ordered[most:]
    rows = [(cut(name), n, (links or {}).get(name)) for name, n in shown]
    if rest or others:
        name = f"{len(rest):,} others" if rest and not others else "all others"
        rows.append((name, sum(n for _, n in rest) + others, None))
    longest = max(*(n for _, n, _ in rows), 1)
    total = max(sum(n for _, n, _ in rows), 1)
    lines = []
    for label, n, link in rows:
        name = f'<a href="{text(link)}">{text(label)}</a>' if link else text(label)
        lines.append(
            f'<tr><th scope="row">{name}</th><td class="bar" title="{n:,}, {n / total:.1%}">'
            f'<i class="{color}" style="width:{n / longest:.2%}"></i></td><td class="n">{n:,}</td></tr>'
        )
    return f'<table class="bars"><caption>{text(title)}</caption>{"".join(lines)}</table>'


def stacked(rows_of: Mapping[str, Mapping[str, int]], *, title: str, series: Mapping[str, str]) -> str:
    """One bar a row, cut into ``series`` (name to color): what became of everything at each stage."""
    longest = max((sum(counts.values()) for counts in rows_of.values()), default=0)
    if not longest:
        return ""
    lines = []
    for row, counts in rows_of.items():
        pieces = "".join(
            f'<i class="{color}" style="width:{counts.get(name, 0) / longest:.2%}" title="{name} {counts[name]:,}"></i>'
            for name, color in series.items()
            if counts.get(name)
        )
        lines.append(f'<tr><th scope="row">{text(row)}</th><td class="bar">{pieces}</td></tr>')
    return f'<table class="bars"><caption>{text(title)}</caption>{"".join(lines)}</table>' + legend(series)


def legend(series: Mapping[str, str]) -> str:
    """Which color is what."""
    items = "".join(f'<li><i class="{color}"></i>{text(name)}</li>' for name, color in series.items())
    return f'<ul class="legend">{items}</ul>'


def curves(
    series: Mapping[str, Points], *, title: str, unit: str, log: bool = True, percent: bool = True, high: str = ""
) -> str:
    """Lines over an axis, with the area under each. ``percent``: heights are shares; ``high`` names the other axis."""
    drawn = {name: list(points) for name, points in series.items() if points}
    if not drawn:
        return ""
    xs = [x for points in drawn.values() for x, _ in points]
    frame = _Frame.around(xs, [y for points in drawn.values() for _, y in points], log=log)
    body = [frame.axes(unit, percent=percent, high=high)]
    for number, points in enumerate(drawn.values()):
        color = SERIES[number % len(SERIES)]
        places = [(frame.x(x), frame.y(y)) for x, y in points]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        base = frame.y(0)
        area = f"M{places[0][0]:.1f} {base:.1f}L{line}L{places[-1][0]:.1f} {base:.1f}Z"
        body.append(f'<path class="area {color}" d="{area}"/><path class="line {color}" d="M{line}"/>')
    body += _hits(frame, drawn, percent=percent)
    names = {name: SERIES[number % len(SERIES)] for number, name in enumerate(drawn)}
    told = _numbers([unit, *drawn], _rows(drawn, percent=percent))
    return (legend(names) if len(drawn) > 1 else "") + _drawing("".join(body), title) + told


def columns(counts: Mapping[str, int], *, title: str) -> str:
    """Counts along an axis of their own order: years, months."""
    rows = sorted(counts.items())
    if not rows:
        return ""
    frame = _Frame.around([0.0, float(len(rows))], [float(n) for _, n in rows], log=False)
    width = (frame.right - _LEFT) / len(rows)
    every = max(1, -(-len(rows) // 10))
    body = [frame.axes("", percent=False, ticks=False)]
    for number, (name, n) in enumerate(rows):
        x, y = _LEFT + number * width, frame.y(n)
        body.append(
            f'<rect class="fill accent" x="{x + width * 0.1:.1f}" y="{y:.1f}" width="{width * 0.8:.1f}"'
            f' height="{max(frame.y(0) - y, 0.5):.1f}" rx="2"><title>{text(name)}: {n:,}</title></rect>'
        )
        if number % every == 0:
            middle = x + width / 2
            body.append(f'<text x="{middle:.1f}" y="{_HIGH - 14}" text-anchor="middle">{text(name)}</text>')
    return _drawing("".join(body), title) + _numbers(["when", "documents"], [(name, f"{n:,}") for name, n in rows])


def density(
    cells: Sequence[Sequence[int]], *, title: str, across: tuple[str, str, str], up: tuple[str, str, str]
) -> str:
    """A plane of counts, ``cells[column][row]``, darker where there are more. ``across`` and ``up`` are a name, the
    least and the most."""
    most = max((n for column in cells for n in column), default=0)
    if not most:
        return ""
    side, left, foot = 240, 40, 34
    width, height = side / len(cells), side / len(cells[0])
    body = [f'<rect class="plane" x="{left}" y="4" width="{side}" height="{side}" rx="4"/>']
    for number, column in enumerate(cells):
        for row, n in enumerate(column):
            if n:
                strength = 0.12 + 0.88 * math.log1p(n) / math.log1p(most)
                body.append(
                    f'<rect class="fill accent" x="{left + number * width:.1f}" y="{4 + side - (row + 1) * height:.1f}"'
                    f' width="{width:.1f}" height="{height:.1f}" opacity="{strength:.2f}"><title>{n:,}</title></rect>'
                )
    low, high = 4 + side + 16, 4 + side + 31
    body.append(
        f'<text x="{left}" y="{low}">{text(across[1])}</text>'
        f'<text x="{left + side}" y="{low}" text-anchor="end">{text(across[2])}</text>'
        f'<text class="name" x="{left + side / 2}" y="{low}" text-anchor="middle">{text(across[0])}</text>'
        f'<text x="{left - 5}" y="{4 + side}" text-anchor="end">{text(up[1])}</text>'
        f'<text x="{left - 5}" y="14" text-anchor="end">{text(up[2])}</text>'
        f'<text class="name" transform="translate(14 {4 + side / 2}) rotate(-90)" text-anchor="middle">'
        f"{text(up[0])}</text>"
    )
    return _drawing("".join(body), title, box=(left + side + 8, high + foot - 30), kind="plot small")


def grid(names: Sequence[str], values: Sequence[Sequence[float]], *, title: str) -> str:
    """A square table of numbers from -1 to 1, colored by sign and size."""
    head = "".join(f'<th scope="col"><span>{text(name)}</span></th>' for name in names)
    lines = []
    for name, row in zip(names, values, strict=True):
        cells = []
        for value in row:
            if math.isnan(value):
                cells.append("<td>·</td>")
                continue
            color, share = ("--accent", value) if value >= 0 else ("--second", -value)
            paint = f"background:color-mix(in srgb,var({color}) {share * 55:.0f}%,transparent)"
            cells.append(f'<td style="{paint}">{value:.1f}</td>'.replace("-0.0", "0.0"))
        lines.append(f'<tr><th scope="row">{text(name)}</th>{"".join(cells)}</tr>')
    return f'<table class="grid"><caption>{text(title)}</caption><tr><td></td>{head}</tr>{"".join(lines)}</table>'


def histogram_of(values: Sequence[float], bins: int = 40) -> Points:
    """Shares of the values in bins that grow with the value, by the middle of each bin."""
    if not values:
        return []
    low, high = math.log1p(max(min(values), 0)), math.log1p(max(*values, 1))
    step = max((high - low) / bins, 1e-9)
    counts = [0] * (bins + 1)
    for value in values:
        counts[int((math.log1p(max(value, 0)) - low) / step + 0.5)] += 1
    return [(math.expm1(low + place * step), n / len(values)) for place, n in enumerate(counts)]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where numbers stand in a drawing."""

    least: float
    most: float
    top: float
    log: bool
    right: float = _WIDE - _RIGHT

    @classmethod
    def around(cls, xs: Sequence[float], ys: Sequence[float], *, log: bool) -> _Frame:
        least = min(xs)
        most = max(*xs, least + 1)
        return cls(max(least, 1.0) if log else least, most + (1 if log else 0), _nice(max(*ys, 1e-09)), log)

    def x(self, value: float) -> float:
        if self.log:
            share = math.log(max(value, self.least) / self.least) / math.log(self.most / self.least)
        else:
            share = (value - self.least) / (self.most - self.least)
        return _LEFT + min(max(share, 0), 1) * (self.right - _LEFT)

    def y(self, value: float) -> float:
        return _TOP + (1 - value / self.top) * (_HIGH - _TOP - _BOTTOM)

    def axes(self, unit: str, *, percent: bool, ticks: bool = True, high: str = "") -> str:
        lines = []
        for part in (0, 0.25, 0.5, 0.75, 1):
            y = self.y(self.top * part)
            said = f"{self.top * part * 100:.3g}%" if percent else short(self.top * part)
            lines.append(
                f'<path class="rule" d="M{_LEFT} {y:.1f}H{self.right}"/>'
                f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{said}</text>'
            )
        low, middle = f'y="{_HIGH - 18}" text-anchor="middle"', (_LEFT + self.right) / 2
        lines += [f'<text x="{self.x(tick):.1f}" {low}>{short(tick)}</text>' for tick in self._ticks() if ticks]
        name = f'<text class="name" x="{middle}" y="{_HIGH - 3}" text-anchor="middle">{text(unit)}</text>'
        above = f'<text class="name" x="{_LEFT + 4}" y="{_TOP + 12}">{text(high)}</text>' if high else ""
        return "".join(lines) + name + above

    def _ticks(self) -> list[float]:
        if not self.log:
            step = _nice((self.most - self.least) / 5)
            first = math.ceil(self.least / step)
            return [n * step for n in range(first, int(self.most / step) + 1)]
        powers = range(math.floor(math.log10(self.least)), math.ceil(math.log10(self.most)) + 1)
        inner = (1, 3) if len(powers) <= 5 else (1,)
        found = [base * 10.0**power for power in powers for base in inner]
        return [tick for tick in found if self.least <= tick <= self.most]


def _nice(value: float) -> float:
    """The next round number that is not below."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * 0.999)


def _hits(frame: _Frame, drawn: Mapping[str, Points], *, percent: bool) -> list[str]:
    """Invisible columns that say their numbers when pointed at."""
    first = next(iter(drawn.values()))
    if any(len(points) != len(first) for points in drawn.values()) or len(first) > 120:
        return []
    found = []
    for number, (x, _) in enumerate(first):
        here = frame.x(x)
        half = max((frame.x(first[min(number + 1, len(first) - 1)][0]) - frame.x(first[max(number - 1, 0)][0])) / 4, 2)
        said = "; ".join(f"{name} {_figure(points[number][1], percent)}" for name, points in drawn.items())
        found.append(
            f'<rect class="hit" x="{here - half:.1f}" y="{_TOP}" width="{half * 2:.1f}"'
            f' height="{_HIGH - _TOP - _BOTTOM}">'
            f"<title>about {short(x)}: {text(said)}</title></rect>"
        )
    return found


def _rows(drawn: Mapping[str, Points], *, percent: bool) -> list[tuple[str, ...]]:
    xs = sorted({x for points in drawn.values() for x, _ in points})
    known = [dict(points) for points in drawn.values()]
    return [(short(x), *(_figure(points[x], percent) if x in points else "" for points in known)) for x in xs]


def _numbers(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    names = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<details class="numbers"><summary>As a table</summary><table><tr>{names}</tr>{lines}</table></details>'


def _figure(value: float, percent: bool) -> str:
    return f"{value:.1%}" if percent else f"{value:,.0f}"


def _drawing(body: str, title: str, box: tuple[float, float] = (_WIDE, _HIGH), kind: str = "plot") -> str:
    return (
        f'<svg class="{kind}" role="img" aria-label="{text(title)}" viewBox="0 0 {box[0]:g} {box[1]:g}"'
        f' xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )


def short(value: float) -> str:
    """A number of few characters: 12, 3.4k, 5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def cut(name: str, length: int = _LABEL) -> str:
    """A label that fits; its end stays, because names of one place differ there."""
    return name if len(name) <= length else f"{name[: length // 2]}…{name[len(name) - length // 2 + 1 :]}"


def printable(value: str, keep: str = "") -> str:
    """The text with every control, direction mark and broken character replaced, but for those of ``keep``: they could
    hide or reorder what a reader sees."""
    return "".join(mark if mark.isprintable() or mark in keep else "\ufffd" for mark in value)


def text(value: object) -> str:
    """Text for the page: escaped, and without characters that could hide or reorder what is read."""
    return html.escape(printable(str(value), keep=_MARKS))
