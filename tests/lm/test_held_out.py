"""A training that is judged under way keeps its best weights, and ends when nothing comes of going on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from toy_training import Toy
from treadle.core.errors import UserError
from treadle.lm.course import Course
from treadle.lm.embedding_training import Pair, train_embedder
from treadle.lm.epochs import accuracy, f1
from treadle.lm.fitting import FitSettings
from treadle.lm.held_out import Looks, Watch
from treadle.lm.learner import AdamW, all_of
from treadle.lm.part import Part
from treadle.lm.team import Team


@dataclass
class Worse:
    """Learns what comes after each number, and soon something else; what is held out stays as in the beginning."""

    steps: int = 40
    epoch: int = 8
    name: str = "toy"
    remedy: str = "no"
    seed: int | None = 3
    metrics: tuple[str, ...] = ("accuracy",)
    seen: list[int] = field(default_factory=list)

    def size(self, step: int) -> int:
        return 4

    def part(self, step: int, first: int, last: int) -> Part:
        rows = torch.randint(0, 50, (4, 8), generator=torch.Generator().manual_seed(step))[first:last]
        return Part(rows.numel(), rows.numel(), (rows, 1 if step <= 16 else 7))

    def held_out(self) -> list[Part]:
        rows = torch.randint(0, 50, (4, 8), generator=torch.Generator().manual_seed(99))
        return [Part(rows.numel(), rows.numel(), (rows, 1))]

    def loss(self, model: Any, part: Part) -> torch.Tensor:
        rows, distance = part.data
        logits = model(rows).flatten(0, 1)
        right = (rows.flatten() + distance) % 50
        if part.said is not None:
            part.said.extend(zip(logits.argmax(-1).tolist(), right.tolist(), strict=True))
        return torch.nn.functional.cross_entropy(logits, right, reduction="sum")

    def scores(self, said: Sequence[tuple[int, int]]) -> dict[str, float]:
        return {"accuracy": accuracy(said)}


def _course(looks: Looks | None) -> tuple[Toy, Any, list[dict[str, float]]]:
    torch.manual_seed(0)
    model, lessons, told = Toy(), Worse(), list[dict[str, float]]()
    optimizer = AdamW(3e-2, 1.0, 0.0, torch.float32)
    learner = Team().learner(model, optimizer, all_of, lambda part: lessons.loss(model, part))
    watch = Watch(looks, lessons, model) if looks else None
    progress = Course(lessons, learner, lambda _step: 3e-2, watch=watch).run(None, lambda at: told.append(at.figures))
    return model, progress, told


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_the_best_is_kept_and_patience_ends_it(metric: str) -> None:
    model, progress, told = _course(Looks(metric, patience=2))
    looks = [(step, each[f"held_out_{metric}"]) for step, each in enumerate(told, 1) if each]
    assert [step for step, _ in looks] == list(range(2, progress.done + 1, 2))  # four an epoch of eight steps
    best = min(looks, key=lambda look: look[1] if metric == "loss" else -look[1])
    assert progress.kept == best[0]
    assert progress.done == best[0] + 4 < 40
    part = Worse().held_out()[0]
    part = Part(part.learned, part.tokens, part.data, [])
    with torch.no_grad():
        loss = float(Worse().loss(model, part)) / part.learned
    assert (loss if metric == "loss" else accuracy(part.said or [])) == pytest.approx(best[1], abs=1e-6)
    worse, whole, none = _course(None)
    assert (whole.done, whole.kept, any(none)) == (40, None, False)
    with torch.no_grad():
        assert float(Worse().loss(worse, part)) / part.learned > loss + 1


def test_what_cannot_be_looked_at_is_said() -> None:
    with pytest.raises(UserError, match=r"develop\.keep_best: 'f1' is not of this training; expected one of loss, acc"):
        _course(Looks("f1"))


def test_f1_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    draw = random.Random(0)
    said = [(draw.choice("abc"), draw.choice("abcd")) for _ in range(50)]
    theirs = f1_score([right for _, right in said], [answer for answer, _ in said], average="macro")
    assert f1(said) == pytest.approx(theirs)


def test_pairs_in_pieces_are_told_from_all_of_their_batch(tmp_path: Path, begun: dict[str, Path]) -> None:
    words = ["object", "value", "function", "user", "returns", "system"]
    draw = random.Random(1)
    texts = [" ".join(draw.choices(words, k=5)) for _ in range(9)]
    pairs = [Pair(text, text[::-1], ("wrong", text[3:]) if at % 3 == 0 else ()) for at, text in enumerate(texts)]
    losses: dict[int | None, list[float]] = {}
    for micro in (None, 2, 4):
        told = losses[micro] = []
        settings = FitSettings(1e-3, 5, 32, 0, threads=1, precision="float32", micro=micro)
        train_embedder(
            begun["bert without dropout"],
            tmp_path / str(micro),
            pairs,
            settings,
            lambda at, told=told: told.append(at.loss),
        )
    assert losses[2] == pytest.approx(losses[None], rel=1e-4)
    assert losses[4] == pytest.approx(losses[None], rel=1e-4)
    assert losses[None][-1] < losses[None][0] - 0.1
