"""What the tests of release targets saw, kept for the table in the docs when asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "targets"


def keep(
    target: str, *, validated: str, ran: str = "", same_text: bool | None = None, digest: bool | None = None
) -> None:
    """One JSON line, where ``TREADLE_KEEP_RESULTS`` is set. ``validated``: by what the files were; ``ran``: on what a
    release answered, whether with the project's own text and naming the digest that was rendered."""
    if not os.environ.get("TREADLE_KEEP_RESULTS"):
        return
    RESULTS.mkdir(parents=True, exist_ok=True)
    seen = {"target": target, "validated": validated, "ran": ran, "same_text": same_text, "digest": digest}
    (RESULTS / f"{target}.json").write_text(json.dumps(seen) + "\n")
