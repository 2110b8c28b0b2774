"""What came of a load: latencies, tokens, what kept the objective, and errors by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from treadle.loading.client import Answered
from treadle.record.slo import Slo

PERCENTS = (50, 90, 95, 99, 99.9)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of values in order."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def spread(values: Iterable[float]) -> dict[str, float] | None:
    """Percentiles, mean and the largest, in seconds; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    found = {f"p{percent:g}": round(percentile(ordered, percent), 6) for percent in PERCENTS}
    return found | {"mean": round(sum(ordered) / len(ordered), 6), "max": round(ordered[-1], 6)}


def outcome(answers: Sequence[Answered], slo: Slo | None) -> dict[str, Any]:
    """All figures as JSON; times in seconds, counted from when a request was due."""
    good = [each for each in answers if each.error is None]
    refused = [each for each in answers if each.status == 429]
    seconds = max((each.ended for each in answers), default=0.0)
    last_due = max((each.due for each in answers), default=0.0)
    tokens = sum(each.answer_tokens for each in good)
    found: dict[str, Any] = {
        "requests": len(answers),
        "answered": len(good),
        "refused": len(refused),
        "errors": dict(Counter(each.error for each in answers if each.error is not None).most_common()),
        "seconds": round(seconds, 3),
        "requests_per_second": round(len(answers) / last_due, 3) if last_due else None,
        "answered_per_second": round(len(good) / seconds, 3) if seconds else 0.0,
        "tokens_per_second": round(tokens / seconds, 1) if seconds else 0.0,
        "prompt_tokens": sum(each.prompt_tokens for each in good),
        "answer_tokens": tokens,
        "ttft": spread(each.ttft for each in good),
        "between_tokens": spread(gap for each in good for gap in each.gaps),
        "total": spread(each.total for each in good),
        "refusal": spread(each.total for each in refused),
        "sent_late": spread(each.sent - each.due for each in answers if each.sent),
        "releases": dict(Counter(each.release for each in good if each.release)),
    }
    if slo is not None:
        met = sum(slo.excess(each.ttft, each.total, each.answer_tokens) <= 1 for each in good)
        found["slo"] = slo.given() | {
            "met": met,
            "share": round(met / len(answers), 5) if answers else 0.0,
            "share_of_answered": round(met / len(good), 5) if good else 0.0,
            "goodput": round(met / seconds, 3) if seconds else 0.0,
        }
    return found
