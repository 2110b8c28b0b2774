"""The dashboard of a served release for Grafana: what an operator looks at, over the metrics of ``GET /metrics``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_SOURCE = {"type": "prometheus", "uid": "prometheus"}
_WIDTH, _HEIGHT, _ACROSS = 8, 8, 3  # of a panel, in Grafana's grid of 24 columns
_RATE = "$__rate_interval"


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}_total[{_RATE}]))"


def _percentiles(metric: str) -> dict[str, str]:
    """Of a histogram, over all endpoints."""
    rates = f"sum by (le) (rate({metric}_bucket[{_RATE}]))"
    return {f"p{percent}": f"histogram_quantile({percent / 100}, {rates})" for percent in (50, 95, 99)}


@dataclass(frozen=True, slots=True)
class _Panel:
    """Its curves by legend, each a query in PromQL; ``unit`` as Grafana calls it."""

    title: str
    unit: str
    curves: Mapping[str, str] = field(default_factory=dict)


_PANELS = (
    _Panel("Requests a second", "reqps", {"{{endpoint}} {{status}}": _rate("treadle_requests", "endpoint, status")}),
    _Panel("Time of a whole answer", "s", _percentiles("treadle_request_seconds")),
    _Panel("Time to the first token", "s", _percentiles("treadle_time_to_first_token_seconds")),
    _Panel("Errors a second, by code", "reqps", {"{{code}}": _rate("treadle_errors", "code")}),
    _Panel("Tokens a second", "short", {"{{kind}}": _rate("treadle_tokens", "kind")}),
    _Panel("Tokens a second of one answer", "short", _percentiles("treadle_tokens_per_second")),
    _Panel(
        "Requests held",
        "short",
        {
            "in flight": "sum(treadle_in_flight_requests)",
            "limit": "sum(treadle_in_flight_limit)",
            "at work in engines": "sum(treadle_running_requests)",
            "waiting for engines": "sum(treadle_queue_requests)",
        },
    ),
    _Panel("Memory", "bytes", {"{{process}}": "sum by (process) (treadle_memory_bytes)"}),
    _Panel(
        "Part of the requests a release gets",
        "percentunit",
        {"{{release}}": "max by (release) (treadle_release_share)"},
    ),
    _Panel(
        "Answers a second, by release", "reqps", {"{{release}} {{status}}": _rate("treadle_answers", "release, status")}
    ),
    _Panel(
        "Guardrails, and answers of a fallback",
        "reqps",
        {
            "{{guardrail}} {{side}} {{action}}": _rate("treadle_guardrail_findings", "guardrail, side, action"),
            "fallback {{answered_by}}": _rate("treadle_fallbacks", "answered_by"),
        },
    ),
    _Panel("Feedback an hour", "short", {"{{kind}}": "sum by (kind) (increase(treadle_feedback_total[1h]))"}),
    _Panel(
        "Tokens an hour, by key",
        "short",
        {"{{key}} {{kind}}": "sum by (key, kind) (increase(treadle_key_tokens_total[1h]))"},
    ),
    _Panel(
        "Refused by keys' rules and limits, a second",
        "reqps",
        {"{{key}} {{code}}": _rate("treadle_key_refusals", "key, code")},
    ),
    _Panel(
        "Servers behind this one",
        "short",
        {
            "{{upstream}} at work": "sum by (upstream) (treadle_upstream_running_requests)",
            "{{upstream}} left alone": "sum by (upstream) (treadle_upstream_open)",
        },
    ),
)


def queries() -> list[str]:
    """All of its PromQL."""
    return [query for panel in _PANELS for query in panel.curves.values()]


def dashboard(name: str) -> bytes:
    """As JSON that Grafana provisions from a file; ``name`` is the model's."""
    panels = [_drawn(panel, number) for number, panel in enumerate(_PANELS)]
    said = {"uid": "treadle", "title": f"Treadle: {name}", "schemaVersion": 39, "refresh": "10s", "panels": panels}
    return (json.dumps({**said, "time": {"from": "now-1h", "to": "now"}}, indent=2) + "\n").encode()


def _drawn(panel: _Panel, number: int) -> dict[str, Any]:
    return {
        "id": number + 1,
        "title": panel.title,
        "type": "timeseries",
        "datasource": _SOURCE,
        "gridPos": {
            "h": _HEIGHT,
            "w": _WIDTH,
            "x": _WIDTH * (number % _ACROSS),
            "y": _HEIGHT * (number // _ACROSS),
        },
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for at, (legend, query) in enumerate(panel.curves.items())
        ],
    }
