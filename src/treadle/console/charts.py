"""Charts as the geometry of inline SVG: numbers come in, polylines and bars in a box come out; colors are classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MOST_POINTS = 240  # of one line; more would not show
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where, and what it says."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """One series: ``points`` as SVG has them; ``last`` is its last value."""

    name: str
    points: str
    last: float


@dataclass(frozen=True, slots=True)
class Curves:
    """Lines over each other, in a box of ``width`` by ``height``."""

    width: int
    height: int
    lines: tuple[Line, ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class Bars:
    """Counts over time, as one path of upright strokes ``stroke`` wide; ``top`` is the highest count."""

    width: int
    height: int
    path: str
    stroke: float
    top: float


@dataclass(frozen=True, slots=True)
class Whisker:
    """An interval around a value on a line where 0 is marked; all from 0 to ``width``."""

    width: int
    zero: float
    low: float
    high: float
    value: float


def curves(series: Mapping[str, Points], *, width: int = 400, height: int = 150) -> Curves | None:
    """Lines of (x, y); None where there is nothing to draw. Values that are no numbers are left out."""
    kept = {name: found for name, points in series.items() if (found := [(x, y) for x, y in points if _finite(x, y)])}
    if not kept:
        return None
    xs = [x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points]
    left, right = min(xs), max(xs)
    low, high = min(ys), max(ys)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin
    across = (width / (right - left)) if right > left else 0.0
    lines = tuple(
        Line(
            name,
            " ".join(
                f"{(x - left) * across if across else width / 2:.1f},{(high - y) / (high - low) * height:.1f}"
                for x, y in thinned(points)
            ),
            points[-1][1],
        )
        for name, points in kept.items()
    )
    return Curves(
        width,
        height,
        lines,
        tuple(Tick(round((at - left) * across, 1), _label(at)) for at in nice(left, right)) if across else (),
        tuple(Tick(round((high - at) / (high - low) * height, 1), _label(at)) for at in nice(low, high)),
    )


def bars(counts: Sequence[float], *, width: int = 480, height: int = 64) -> Bars:
    """Counts side by side; nothing is drawn where nothing was counted."""
    top = max(counts, default=0.0)
    step = width / max(len(counts), 1)
    strokes = [
        f"M{(place + 0.5) * step:.1f} {height}V{height - max(1.5, count / top * height):.1f}"
        for place, count in enumerate(counts)
        if count
    ]
    return Bars(width, height, "".join(strokes), round(step * 0.72, 2), float(top))


def whisker(value: float, low: float, high: float, *, width: int = 160) -> Whisker | None:
    """An interval, with room around it and 0 always in sight."""
    if not _finite(value, low) or not _finite(low, high):
        return None
    least, most = min(low, value, 0.0), max(high, value, 0.0)
    room = (most - least) * 0.08 or 1.0
    least, most = least - room, most + room

    def at(number: float) -> float:
        return round((number - least) / (most - least) * width, 1)

    return Whisker(width, at(0.0), at(low), at(high), at(value))


def thinned(points: Points) -> Points:
    """At most ``MOST_POINTS``: of each stretch the lowest and the highest, so that no spike is lost."""
    if len(points) <= MOST_POINTS:
        return points
    stretch = math.ceil(len(points) / (MOST_POINTS // 2))
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        kept.extend(sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}))
    return kept


def nice(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers between two ends."""
    if high <= low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step)
    return [place * step for place in range(first, math.floor(high / step) + 1)][:12]


def _finite(*values: float) -> bool:
    return all(math.isfinite(value) for value in values)


def _label(value: float) -> str:
    if value == 0 or abs(value) < 1e-12:
        return "0"
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.3g}"
