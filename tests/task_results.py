"""Scores of the tests that take a task from data to an evaluated release, kept for the docs when asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "tasks"


def keep(name: str, about: str, evaluations: dict[str, Any]) -> None:
    """One JSON line, where ``TREADLE_KEEP_RESULTS`` is set: scores with their intervals by evaluation."""
    if not os.environ.get("TREADLE_KEEP_RESULTS"):
        return
    scores = {
        which: {metric: {key: score[key] for key in ("value", "low", "high", "n")} for metric, score in found.items()}
        for which, found in evaluations.items()
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"task": name, "about": about, "scores": scores}) + "\n")
