"""Treadle runs the whole life of a language model from one file, and follows every answer back to its documents.

What is public is loaded when it is first used; importing this package starts nothing and imports nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle.api import approve, ask, diff, forget, head, lineage, plan, prove, rollback, run, status, verify, watch
    from treadle.core.artifacts import Artifact
    from treadle.core.errors import TreadleError, UserError
    from treadle.core.experiment import Experiment
    from treadle.core.runs import Run
    from treadle.core.steps import step
    from treadle.tracking import start_run

_HOMES = {
    "Artifact": "treadle.core.artifacts",
    "Experiment": "treadle.core.experiment",
    "Run": "treadle.core.runs",
    "TreadleError": "treadle.core.errors",
    "UserError": "treadle.core.errors",
    "approve": "treadle.api",
    "ask": "treadle.api",
    "diff": "treadle.api",
    "forget": "treadle.api",
    "head": "treadle.api",
    "lineage": "treadle.api",
    "plan": "treadle.api",
    "prove": "treadle.api",
    "rollback": "treadle.api",
    "run": "treadle.api",
    "start_run": "treadle.tracking",
    "status": "treadle.api",
    "step": "treadle.core.steps",
    "verify": "treadle.api",
    "watch": "treadle.api",
}

__all__ = [
    "Artifact",
    "Experiment",
    "Run",
    "TreadleError",
    "UserError",
    "approve",
    "ask",
    "diff",
    "forget",
    "head",
    "lineage",
    "plan",
    "prove",
    "rollback",
    "run",
    "start_run",
    "status",
    "step",
    "verify",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'treadle' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
