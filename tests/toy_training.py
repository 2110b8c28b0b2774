"""A small model of torch alone, and its training by several strategies in the processes of a test."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from treadle.core.plugins import load
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import Course
from treadle.lm.joined_team import JoinedTeam
from treadle.lm.learner import AdamW, all_of
from treadle.lm.part import Part
from treadle.lm.team import Team

STEPS, RATE = 50, 1e-2


class Toy(torch.nn.Module):
    """Blocks in a list and tied embeddings, as a language model has them; sizes that two do not divide."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(50, 16)
        self.layers = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(16, 33), torch.nn.Tanh(), torch.nn.Linear(33, 16)) for _ in range(3)
        )
        self.head = torch.nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> Any:
        states = self.embed(ids)
        for layer in self.layers:
            states = states + layer(states)
        return self.head(states)


class Counting:
    """Five rows a step: what comes after each number."""

    steps, name, remedy = STEPS, "toy", "no"
    seed: int | None = 3

    def size(self, step: int) -> int:
        return 5

    def part(self, step: int, first: int, last: int) -> Part:
        rows = torch.randint(0, 50, (5, 8), generator=torch.Generator().manual_seed(step))[first:last]
        return Part(rows.numel(), rows.numel(), rows)

    def loss(self, model: Any, part: Part) -> torch.Tensor:
        logits = model(part.data).flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, (part.data.flatten() + 1) % 50, reduction="sum")


@dataclass(frozen=True)
class Settings:
    """Of a job."""

    threads: int | None = 1


@dataclass(frozen=True)
class Result:
    """Losses by strategy and rows at a time, and how many steps came from a checkpoint."""

    environment: dict[Any, Any] = field(default_factory=dict)


def _fresh() -> Toy:
    torch.manual_seed(0)
    return Toy()


def train(team: Team, kept: Checkpoints | None, micro: int | None = None) -> tuple[list[float], list[Any], int]:
    """Losses, weights, and the steps that came from a checkpoint."""
    model, lessons, seen = _fresh(), Counting(), list[float]()
    optimizer = AdamW(RATE, 1.0, 0.1, torch.float32, decays_vectors=False)
    learner = team.learner(model, optimizer, all_of, lambda part: lessons.loss(model, part))
    course = Course(lessons, learner, lambda _step: RATE, micro=micro, team=team)
    resumed = course.run(kept, lambda report: seen.append(report.loss)).resumed
    return seen, [each.detach() for each in learner.finished(model, _fresh).parameters()], resumed


def several(strategies: list[str], out: Path, settings: Settings, *, on_step: Any, team: Team) -> Result:
    """Each strategy, with all rows at once and with two at a time; checkpoints stay under ``out``."""
    found: dict[Any, Any] = {}
    for name in strategies:
        for micro in (None, 2):
            with Checkpoints(out / f"{name}-{micro}", every=0.0) as kept:
                joined = JoinedTeam(team.rank, team.size, load("treadle.strategies", name).value(), "cpu")
                found[name, micro] = train(joined, kept, micro)[0]
    return Result(found)
