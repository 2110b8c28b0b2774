"""The picture of what optimizing gains and costs: speed across, loss up, size as area; one file that loads nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from treadle.text.chart import short, text
from treadle.text.page import page, section, table

_WIDE, _HIGH = 900, 430
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 120, 24, 44
_LARGEST = 30.0  # radius of the largest model
_SHOWN = 4.0  # times the limit: what lost more is drawn at the upper edge

Row = Mapping[str, Any]


def frontier(points: Sequence[Row]) -> set[str]:
    """Names of the kept points that no other kept one beats: as fast, as small and as good, and better in one.

    Below no loss lies only chance, so it counts as none.
    """
    kept = [point for point in points if point["verdict"] == "kept"]

    def beats(one: Row, other: Row) -> bool:
        lost, others = max(one["loss"], 0), max(other["loss"], 0)
        pairs = [(one["speed"], other["speed"]), (-one["size"], -other["size"]), (-lost, -others)]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    return {point["name"] for point in kept if not any(beats(other, point) for other in kept)}


def page_of(drawn: Mapping[str, Any]) -> str:
    """The page; ``drawn`` is what ``treadle optimize --json`` says of the points."""
    points, unit, metric = drawn["points"], drawn["unit"], drawn["metric"]
    best = max((p for p in points if p["verdict"] == "kept"), key=lambda p: p["speed"], default=None)
    first = next((point for point in points if point["name"] == drawn["unchanged"]), None)
    tiles = [(f"{len(points)}", "ways measured"), (f"{drawn['limit']:.2%}", f"{metric} may be lost")]
    if best is not None and first is not None:
        tiles.append((f"{best['speed'] / first['speed']:.1f}x", f"the speed, by {best['name']}"))
        small = min((p for p in points if p["verdict"] == "kept"), key=lambda p: p["size"])
        tiles.append((f"{small['size'] / first['size']:.0%}", f"of the size, by {small['name']}"))
    shown = "".join(f"<div><b>{text(value)}</b><span>{text(name)}</span></div>" for value, name in tiles)
    intro = (
        f"Each circle is one way, its area the size of its weights. To the right is faster ({text(unit)} a second of"
        f" processor time), below is better ({text(_lost(metric))}, with its 95 % interval). What lies above the dashed"
        " line is refused."
    )
    return page(
        f"Optimizing {drawn['ref']}",
        f"{drawn['items']:,} items of {drawn['dataset'][:19]}; every figure was measured on this machine",
        f'<div class="tiles">{shown}</div>',
        [
            section("Size, speed, quality", _picture(drawn), intro=intro),
            section("Figures", _table(drawn)),
            section("Again", "<pre>" + "\n".join(text(point["command"]) for point in points) + "</pre>"),
            section("Not measured", f"<p>{text(', '.join(drawn['left_out']))}</p>" if drawn["left_out"] else ""),
        ],
    )


def _picture(drawn: Mapping[str, Any]) -> str:
    points, limit = drawn["points"], drawn["limit"]
    if not points:
        return ""
    speeds = [float(point["speed"]) for point in points]
    least, most = min(speeds) / 1.3, max(speeds) * 1.3
    top = max(float(limit) * _SHOWN, 1e-6)
    bottom = min(-top / 4, *(float(point["loss"]) for point in points))
    largest = max(point["size"] for point in points)

    def x(speed: float) -> float:
        return _LEFT + math.log(speed / least) / math.log(most / least) * (_WIDE - _LEFT - _RIGHT)

    def y(loss: float) -> float:
        return _TOP + (top - min(loss, top)) / (top - bottom) * (_HIGH - _TOP - _BOTTOM)

    body = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        level = bottom + share * (top - bottom)
        body.append(
            f'<path class="rule" d="M{_LEFT} {y(level):.1f}H{_WIDE - _RIGHT}"/>'
            f'<text x="{_LEFT - 6}" y="{y(level) + 4:.1f}" text-anchor="end">{level:+.1%}</text>'
        )
    low = f'y="{_HIGH - 24}" text-anchor="middle"'
    body += [f'<text x="{x(tick):.1f}" {low}>{short(tick)}</text>' for tick in _ticks(least, most)]
    body.append(
        f'<path class="line warn" stroke-dasharray="6 5" d="M{_LEFT} {y(limit):.1f}H{_WIDE - _RIGHT}"/>'
        f'<text x="{_WIDE - _RIGHT + 6}" y="{y(limit) + 4:.1f}">limit {limit:.2%}</text>'
        f'<text class="name" x="{(_WIDE - _RIGHT + _LEFT) / 2}" y="{_HIGH - 6}" text-anchor="middle">'
        f"{text(drawn['unit'])} a second of processor time</text>"
    )
    best = sorted((p for p in points if p["name"] in drawn["frontier"]), key=lambda p: float(p["speed"]))
    if len(best) > 1:
        steps = "L".join(f"{x(point['speed']):.1f} {y(point['loss']):.1f}" for point in best)
        body.append(f'<path class="line third" opacity=".6" d="M{steps}"/>')
    for point in sorted(points, key=lambda p: -int(p["size"])):
        across, begin, end = x(point["speed"]), y(max(point["low"], bottom)), y(point["high"])
        body.append(f'<path class="rule" style="stroke:var(--soft)" d="M{across:.1f} {begin:.1f}V{end:.1f}"/>')
        body.append(_circle(point, drawn, across, y(point["loss"]), largest))
    body += _labels([(x(p["speed"]), y(p["loss"]), _label(p, beyond=p["loss"] > top)) for p in points])
    label = f"Speed, loss and size of {len(points)} ways"
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {_WIDE} {_HIGH}" xmlns="http://www.w3.org/2000/svg">'
        f"{''.join(body)}</svg>"
    )


def _circle(point: Row, drawn: Mapping[str, Any], x: float, y: float, largest: int) -> str:
    color = "--warn" if point["verdict"] == "refused" else "--third" if point["name"] in drawn["frontier"] else "--soft"
    radius = max(3.0, _LARGEST * math.sqrt(point["size"] / max(largest, 1)))
    said = f"{point['name']}: {_cells(point, drawn)}"
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="var({color})" fill-opacity=".28"'
        f' stroke="var({color})"><title>{text(said)}</title></circle>'
    )


def _label(point: Row, *, beyond: bool) -> str:
    mark = f"▲ {point['loss']:+.0%} " if beyond else ""
    return f"{mark}{point['name']}"


def _labels(wanted: Sequence[tuple[float, float, str]]) -> list[str]:
    """Beside their circles, each pushed down until it covers none before it."""
    placed: list[tuple[float, float, float]] = []
    found = []
    for x, y, label in sorted(wanted):
        left, right, base = x + 5, x + 5 + 7 * len(label), y - 5
        while any(start < right and left < end and abs(base - other) < 13 for start, end, other in placed):
            base += 13
        placed.append((left, right, base))
        found.append(f'<text class="name" x="{left:.1f}" y="{base:.1f}">{text(label)}</text>')
    return found


def _ticks(least: float, most: float) -> list[float]:
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    return [base * 10.0**power for power in powers for base in (1, 2, 5) if least <= base * 10.0**power <= most]


def _cells(point: Row, drawn: Mapping[str, Any]) -> str:
    return (
        f"{point['size'] / 1e6:,.1f} MB, {point['speed']:,.1f} {drawn['unit']} a second, {point['loss']:+.2%}"
        f" [{point['low']:+.2%}, {point['high']:+.2%}], {point['verdict']}"
    )


def _lost(metric: str) -> str:
    return "rise in perplexity" if metric == "perplexity" else f"fall in {metric}"


def _table(drawn: Mapping[str, Any]) -> str:
    first = next((each for each in drawn["points"] if each["name"] == drawn["unchanged"]), None)
    rows = []
    for point in drawn["points"]:
        faster = f"{point['speed'] / first['speed']:.2f}x" if first else ""
        verdict = "on the frontier" if point["name"] in drawn["frontier"] else point["verdict"]
        rows.append(
            [
                f"<code>{text(point['name'])}</code>",
                f"{point['size'] / 1e6:,.1f}",
                f"{point['speed']:,.1f}",
                faster,
                f"{point['pace']:,.1f}",
                f"{point['memory'] / 1e6:,.0f}",
                f"{point['value']:.4g}",
                f"{point['loss']:+.2%} [{point['low']:+.2%}, {point['high']:+.2%}]",
                text(verdict),
            ]
        )
    head = ("way", "MB", f"{drawn['unit']}/CPU s", "speed", f"{drawn['unit']}/s", "memory MB", drawn["metric"])
    return table((*head, "loss [95 %]", "verdict"), rows, frozenset(range(1, 7)))
