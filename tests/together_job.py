"""What the processes of a test do: the same training under several strategies, one after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from treadle.core.plugins import load
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.joined_team import JoinedTeam
from treadle.lm.pretraining import PretrainingResult, PretrainingSettings, pretrain
from treadle.lm.team import Team


def several(
    strategies: list[str],
    base: Path,
    out: Path,
    rows: Any,
    settings: PretrainingSettings,
    *,
    on_step: Any,
    team: Team,
) -> PretrainingResult:
    """Models to ``out / strategy``, with checkpoints beside; the losses are in ``environment``."""
    found: dict[str, list[float]] = {}
    result = None
    for name in strategies:
        losses = found[name] = []
        with Checkpoints(out / f"{name}-kept", every=0.0) as kept:
            joined = JoinedTeam(team.rank, team.size, load("treadle.strategies", name).value(), "cpu")
            result = pretrain(
                base, out / name, rows, settings, kept, lambda report, seen=losses: seen.append(report.loss), joined
            )
    assert result is not None
    return replace(result, environment=found)
