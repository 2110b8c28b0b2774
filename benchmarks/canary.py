"""Canaries looked at after each request: ``python -m benchmarks.canary [--quick]``.

Simulated requests, each rated yes or no, first with a tenth of the traffic on the new release, then with half, as
`CanarySettings` has it. `treadle.evals.sequential` looks after each one, with the margin, the level and the horizon of
the verdict on a real canary. On the same requests, side by side: the two-proportion z-test at a size that was fixed
before, and the same test looked at after each request.

``false_alarm`` is the larger of two shares: taken back though there is no difference, promoted though truly worse by
the margin. ``power`` is the share taken back where truly worse. The ratio ``sample`` divides the size that the fixed
test needs for the same two figures, in two equal arms, by our median.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import print_report, versions
from treadle.evals.sequential import ALPHA, Arm, compare
from treadle.record.canary import CanarySettings

CANARIES = 1_000
BASE = 0.8
MORE_BASES = (0.5, 0.95)
_NORMAL = statistics.NormalDist()
_SEED = 17

Bools = NDArray[np.bool_]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The sequential test of a canary against fixed-size tests.")
    parser.add_argument("--quick", action="store_true", help="within 60 seconds: one base rate")
    quick = parser.parse_args().quick
    settings = CanarySettings()
    figures: dict[str, Any] = {"canaries": CANARIES, "margin": settings.margin, "max_requests": settings.max_requests}
    ratio, found = measure(settings, BASE)
    figures |= found
    if not quick:
        for base in MORE_BASES:
            other, found = measure(settings, base)
            figures[f"base_{base}"] = {"sample": round(other, 3)} | found
    figures["versions"] = versions(("treadle", "numpy"))
    print_report("canary", {"sample": ratio}, figures)


def measure(settings: CanarySettings, base: float, canaries: int = CANARIES) -> tuple[float, dict[str, Any]]:
    """The ratio ``sample`` and the figures for answers that are good with a probability of ``base``."""
    same = simulate(settings, base, 0.0, canaries)
    worse = simulate(settings, base, -settings.margin, canaries)
    false_alarm = max(same.share("take_back"), worse.share("promote"))
    power = worse.share("take_back")
    # One in so many is the least that so many canaries can show.
    alpha, beta = max(false_alarm, 1 / canaries), max(1 - power, 1 / canaries)
    fixed = fixed_size(base, settings.margin, alpha, beta)
    median = statistics.median(worse.requests)
    figures = {
        "false_alarm": false_alarm,
        "power": power,
        "false_take_back": same.share("take_back"),
        "false_promotion": worse.share("promote"),
        "promoted_where_equal": same.share("promote"),
        "undecided": {"equal": same.share("undecided"), "worse": worse.share("undecided")},
        "median_sample": {"worse": median, "equal": statistics.median(same.requests)},
        "p95_sample": {name: _p95(seen.requests) for name, seen in (("worse", worse), ("equal", same))},
        "fixed_sample": fixed,
        "fixed_sample_at_level_0.05": fixed_size(base, settings.margin, ALPHA, beta),
        "fixed_power": fixed_test(worse, fixed, alpha),
        "fixed_false_alarm": fixed_test(same, fixed, alpha),
        "naive_false_alarm": naive_test(same, ALPHA / 2, settings.min_requests),
        "look_us": round((same.seconds + worse.seconds) / (sum(same.requests) + sum(worse.requests)) * 1e6, 2),
    }
    return fixed / median, figures


@dataclass
class Canaries:
    """How simulated canaries ended; ``streams`` are their requests: whether the new release answered, whether well."""

    actions: Counter[str] = field(default_factory=Counter)
    requests: list[int] = field(default_factory=list)
    streams: list[tuple[Bools, Bools]] = field(default_factory=list)
    seconds: float = 0.0

    def share(self, action: str) -> float:
        """Of the canaries that ended so."""
        return round(self.actions[action] / len(self.requests), 4)


def simulate(settings: CanarySettings, base: float, difference: float, canaries: int) -> Canaries:
    """The rules of the verdict on a real canary, with quality as the only figure and each answer rated at once."""
    rng = np.random.default_rng([_SEED, round(base * 1e6), round(-difference * 1e6)])
    found = Canaries()
    for _ in range(canaries):
        drawn, good = stream(rng, settings, base, difference)
        began = time.perf_counter()
        action, requests = decide(settings, drawn.tolist(), good.tolist())
        found.seconds += time.perf_counter() - began
        found.actions[action] += 1
        found.requests.append(requests)
        found.streams.append((drawn, good))
    return found


def stream(rng: np.random.Generator, settings: CanarySettings, base: float, difference: float) -> tuple[Bools, Bools]:
    """Requests up to the horizon: the share grows after ``min_requests`` in each step."""
    steps = np.minimum(np.arange(settings.max_requests) // settings.min_requests, len(settings.steps) - 1)
    drawn = rng.random(settings.max_requests) < np.array(settings.steps)[steps]
    return drawn, rng.random(settings.max_requests) < base + difference * drawn


def decide(settings: CanarySettings, drawn: list[bool], good: list[bool]) -> tuple[str, int]:
    """What becomes of one canary, and after how many requests."""
    new, champion, margin = Arm(), Arm(), settings.margin
    promotable = settings.min_requests * len(settings.steps)
    for number, (which, value) in enumerate(zip(drawn, good, strict=True), start=1):
        (new if which else champion).add(value)
        found = compare(new, champion, margin=margin, alpha=ALPHA)
        if found.lower:
            return "take_back", number
        if number >= promotable and found.close_enough:
            return "promote", number
    return "undecided", len(drawn)


def fixed_size(base: float, loss: float, alpha: float, beta: float) -> int:
    """Requests in two equal arms for a one-sided two-proportion z-test of that level and power (Fleiss 1981)."""
    z = _NORMAL.inv_cdf(1 - alpha) + _NORMAL.inv_cdf(1 - beta)
    worse = base - loss
    return 2 * int(np.ceil(z * z * (base * (1 - base) + worse * (1 - worse)) / loss**2))


def fixed_test(canaries: Canaries, size: int, alpha: float) -> float:
    """How often the test says worse after ``size`` requests of the same streams, or at their end."""
    bound = -_NORMAL.inv_cdf(1 - alpha)
    return round(float(np.mean([_z(*each)[min(size, len(each[0])) - 1] < bound for each in canaries.streams])), 4)


def naive_test(canaries: Canaries, alpha: float, first: int) -> float:
    """How often it ever says worse when it is looked at after each request from the first ``first`` on."""
    bound = -_NORMAL.inv_cdf(1 - alpha)
    return round(float(np.mean([(_z(*each)[first:] < bound).any() for each in canaries.streams])), 4)


def _z(drawn: Bools, good: Bools) -> NDArray[np.float64]:
    """Of the two-proportion z-test with pooled variance, after each request; 0 where it is not defined."""
    n = np.arange(1, len(drawn) + 1)
    new, hits, new_hits = drawn.cumsum(), good.cumsum(), (drawn & good).cumsum()
    old = n - new
    pooled = hits / n
    variance = pooled * (1 - pooled) * n / np.maximum(new * old, 1)
    difference = new_hits / np.maximum(new, 1) - (hits - new_hits) / np.maximum(old, 1)
    defined = (new > 0) & (old > 0) & (variance > 0)
    return np.asarray(np.where(defined, difference / np.sqrt(np.where(defined, variance, 1.0)), 0.0))


def _p95(values: list[int]) -> int:
    return sorted(values)[int(len(values) * 0.95)]


if __name__ == "__main__":
    main()
