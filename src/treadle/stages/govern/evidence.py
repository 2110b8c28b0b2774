"""What a gate may look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from treadle.evals.report import EvaluationReport

UNRECORDED = "not recorded"  # the license of documents whose source names none


@dataclass(frozen=True)
class Evidence:
    """What a gate may look at. ``evaluations`` has ``model``, each baseline, and ``champion`` where there is one."""

    evaluations: dict[str, EvaluationReport]
    licenses: dict[str, int]
    base_license: str
    folder: Path
