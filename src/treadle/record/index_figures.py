"""Figures over time: what was answered in each span, from counts that the index keeps."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from treadle.core.database import Database
from treadle.core.errors import UserError
from treadle.core.ledger import now
from treadle.record.index_file import BUCKET_SECONDS, SPREAD
from treadle.record.index_rows import SLOT
from treadle.record.interaction_filter import iso, moment

_MOST = 5_000  # spans

# By span of time and by what was said; the same from single rows, for spans that the index does not count by.
_VOLUME = "SELECT bucket, facet, requests, tokens FROM volume WHERE bucket >= ?"
_LATENCY = "SELECT bucket, slot, requests FROM latency WHERE bucket >= ?"
_VOLUME_OF_ROWS = (
    "SELECT key / {0} AS bucket, facet, count(*) AS requests, sum(prompt + completion) AS tokens FROM interactions "
    "WHERE key >= ? * {0} GROUP BY 1, 2"
)
_LATENCY_OF_ROWS = (
    "SELECT key / {0} AS bucket, slot, count(*) AS requests FROM interactions "
    "WHERE key >= ? * {0} AND slot IS NOT NULL GROUP BY 1, 2"
)


@dataclass(frozen=True, slots=True)
class Figures:
    """One span of time, from ``time`` on: what was answered, without smoke requests. ``failed`` of the ``requests``;
    ``ttft_p50`` and ``ttft_p95`` in seconds, to five percent; ``up`` and ``down`` count thumbs on these answers."""

    time: str
    requests: int = 0
    failed: int = 0
    tokens: int = 0
    up: int = 0
    down: int = 0
    ttft_p50: float | None = None
    ttft_p95: float | None = None


def figures(database: Database, since: str, bucket_seconds: int) -> list[Figures]:
    """Every span from ``since`` until now, oldest first, those without a request as well. Spans begin at multiples
    of ``bucket_seconds``; multiples of 300 are quick however much there is."""
    try:
        start = max(moment(since), 0) // 1000 // bucket_seconds
    except (ValueError, ZeroDivisionError):
        raise UserError(f"since {since[:40]!r}, {bucket_seconds} s: expected a time and a number of seconds") from None
    end = moment(now()) // 1000 // bucket_seconds
    if bucket_seconds < 1 or end - start >= _MOST:
        raise UserError(f"{bucket_seconds} s from {since[:40]}: expected at most {_MOST} spans of time")
    step = bucket_seconds // BUCKET_SECONDS if bucket_seconds % BUCKET_SECONDS == 0 else 0
    volume, latency = (_VOLUME, _LATENCY) if step else (_VOLUME_OF_ROWS, _LATENCY_OF_ROWS)
    unit = bucket_seconds * 1000 * SPREAD
    step = step or 1
    sql = (
        "SELECT bucket / ?, f.status = 'failed', f.thumbs, sum(v.requests), sum(v.tokens) "
        f"FROM ({volume.format(unit)}) v JOIN facets f ON f.id = v.facet WHERE f.smoke = 0 GROUP BY 1, 2, 3"
    )
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for bucket, failed, thumbs, requests, tokens in database.query(sql, (step, start * step)):
        given = {0: "down", 1: "up"}.get(thumbs, "")
        counts[bucket].update({"requests": requests, "tokens": tokens, given: requests})
        counts[bucket]["failed"] += requests * failed
    sql = f"SELECT bucket / ?, slot, sum(requests) FROM ({latency.format(unit)}) GROUP BY 1, 2"
    slots: dict[int, dict[int, int]] = defaultdict(dict)
    for bucket, slot, requests in database.query(sql, (step, start * step)):
        slots[bucket][slot] = requests
    found = []
    for bucket in range(start, max([end, *counts]) + 1):
        count = counts[bucket]
        figure = (count["requests"], count["failed"], count["tokens"], count["up"], count["down"])
        quantiles = (_quantile(slots[bucket], 0.5), _quantile(slots[bucket], 0.95))
        found.append(Figures(iso(bucket * bucket_seconds * 1000), *figure, *quantiles))
    return found


def _quantile(slots: Mapping[int, int], share: float) -> float | None:
    """The nearest-rank quantile of a histogram; the middle of its slot."""
    rank = math.ceil(share * sum(slots.values()))
    for slot in sorted(slots):
        rank -= slots[slot]
        if rank <= 0 < slots[slot]:
            return float(f"{math.exp((slot + 0.5) * SLOT):.3g}")
    return None
