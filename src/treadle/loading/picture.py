"""The report of a load: one page that loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.loading.client import Answered
from treadle.loading.outcome import percentile
from treadle.text.chart import bars, curves, text
from treadle.text.page import page, section, table, titled

_BINS = 60
_SHARES = (2, 4, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)  # one in so many is slower
_NAMES = {
    "ttft": "time to first token",
    "between_tokens": "between two pieces of text",
    "total": "time to the last token",
    "refusal": "until a refusal (429)",
    "sent_late": "sent after it was due",
}


def page_of(found: dict[str, Any], answers: Sequence[Answered], command: str) -> str:
    """The page; ``found`` is what ``treadle load --json`` says."""
    tiles = [
        (f"{found['requests']:,}", "requests"),
        (f"{found['answered']:,}", "answered"),
        (f"{found['refused']:,}", "refused (429)"),
        (f"{sum(found['errors'].values()) - found['refused']:,}", "other errors"),
        (f"{found['tokens_per_second']:,.1f}", "tokens a second"),
    ]
    if slo := found.get("slo"):
        tiles.append((f"{slo['share_of_answered']:.2%}", "of the answers kept the objective"))
        tiles.append((f"{slo['goodput']:,.2f}", "such answers a second"))
    shown = "".join(f"<div><b>{text(value)}</b><span>{text(name)}</span></div>" for value, name in tiles)
    intro = "Times count from the moment a request was due, not from when it could be sent."
    return page(
        f"Load on {found['url']}",
        f"{found['how']}; {found['seconds']:,.0f} seconds",
        f'<div class="tiles">{shown}</div>',
        [
            section("Latency", _slower(answers), _figures(found), intro=intro),
            section("Over time", _over_time(answers, found["seconds"])),
            section("Errors", bars(found["errors"], title="Errors by kind", color="warn")),
            section("Releases", bars(found["releases"], title="Answers by release")),
            section("Again", f"<pre>{text(command)}</pre>"),
        ],
    )


def _slower(answers: Sequence[Answered]) -> str:
    good = [each for each in answers if each.error is None]
    if not good:
        return ""
    series = {}
    for name, values in (("ttft", [each.ttft for each in good]), ("total", [each.total for each in good])):
        ordered = sorted(values)
        points = [(n, percentile(ordered, 100 - 100 / n) * 1e3) for n in _SHARES if n <= len(ordered)]
        series[_NAMES[name]] = points or [(1, ordered[-1] * 1e3)]
    return titled(
        "One answer in so many was slower",
        curves(series, title="Latency", unit="one in so many", percent=False, high="milliseconds"),
    )


def _figures(found: dict[str, Any]) -> str:
    names = ("p50", "p90", "p95", "p99", "p99.9", "max", "mean")
    rows = [
        [text(said), *(f"{found[name][each] * 1e3:,.1f}" for each in names)]
        for name, said in _NAMES.items()
        if found.get(name)
    ]
    return titled("Milliseconds", table(("", *names), rows, frozenset(range(1, 8))))


def _over_time(answers: Sequence[Answered], seconds: float) -> str:
    width = max(seconds / _BINS, 1e-9)
    counts = {name: [0.0] * (_BINS + 1) for name in ("due", "answered", "refused", "failed")}
    slowest = [0.0] * (_BINS + 1)
    for each in answers:
        counts["due"][int(each.due / width)] += 1 / width
        name = "answered" if each.error is None else "refused" if each.status == 429 else "failed"
        place = min(int(each.ended / width), _BINS)
        counts[name][place] += 1 / width
        if each.error is None:
            slowest[place] = max(slowest[place], each.ttft * 1e3)

    def points(values: Sequence[float]) -> list[tuple[float, float]]:
        return [(place * width, value) for place, value in enumerate(values[:_BINS])]

    drawn = {name: points(values) for name, values in counts.items() if any(values)}
    return titled(
        "Requests a second",
        curves(drawn, title="Requests over time", unit="seconds", log=False, percent=False),
    ) + titled(
        "Slowest first token",
        curves(
            {"ttft": points(slowest)}, title="Slowest first token over time", unit="seconds", log=False, percent=False,
            high="milliseconds",
        ),
    )  # fmt: skip
