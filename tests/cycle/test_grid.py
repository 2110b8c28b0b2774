"""A grid runs every combination, compares them, and promotes none; what was one value stays one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from small_project import Project
from treadle.core.errors import UserError
from treadle.evals.item import Item, Output
from treadle.evals.metric import Mean
from treadle.evals.results import Evaluation
from treadle.grid import MOST, Grid, GridRun, combinations, compared
from treadle.project import open_project


@pytest.fixture
def folder(fresh: Callable[[], Project]) -> Path:
    return fresh().folder


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), [()]),
        (("develop.learning_rate=1e-4",), [("develop.learning_rate=1e-4",)]),
        (("develop.evaluate.metrics=[rouge_l, perplexity]",), [("develop.evaluate.metrics=[rouge_l, perplexity]",)]),
        (("develop.base_model=a,b",), [("develop.base_model=a,b",)]),
        (("deploy.system_prompt=Be short, be kind.",), [("deploy.system_prompt=Be short, be kind.",)]),
        (("prepare.split={train: 0.6, validation: 0.1, test: 0.3}",),) * 2,
        (
            ("develop.learning_rate=1e-4, 2e-4,1e-4", "seed=3"),
            [("develop.learning_rate=1e-4", "seed=3"), ("develop.learning_rate=2e-4", "seed=3")],
        ),
        (
            ("seed=1,2", "develop.method=full,lora"),
            [(f"seed={seed}", f"develop.method={method}") for seed in (1, 2) for method in ("full", "lora")],
        ),
        (("seed=1", "seed=2"), [("seed=1", "seed=2")]),  # as ever, the last one counts
    ],
)
def test_what_is_several_values(folder: Path, overrides: tuple[str, ...], expected: list[tuple[str, ...]]) -> None:
    wanted = [overrides] if isinstance(expected, tuple) else expected
    assert combinations(folder, overrides) == wanted


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("develop.learning_rate=1e-4,fast", "develop.learning_rate"),
        ("develop.method=full,lorra", "develop.method"),
        ("develop.tokens=34,000", "develop.tokens"),
        ("seed=" + ",".join(map(str, range(MOST + 1))), "more than"),
    ],
)
def test_what_is_no_value(folder: Path, override: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        combinations(folder, (override,))


def score(value: float, low: float, high: float, *, higher: bool = True) -> dict[str, dict[str, object]]:
    return {"loss": {"value": value, "low": low, "high": high, "higher_is_better": higher}}


def test_the_best_and_whether_that_is_decided() -> None:
    first, second = GridRun({"a": "1"}, scores=score(1, 0.8, 1.2)), GridRun({"a": "2"}, scores=score(2, 1.1, 3))
    third, failed = GridRun({"a": "3"}, scores=score(0, -1, 0.5)), GridRun({"a": "4"}, error="no")
    grid = Grid((first, second, third, failed), "loss")
    assert (grid.best, grid.undecided(), grid.ok) == (second, 2, False)  # nothing is compared yet
    low = [GridRun({"a": str(each)}, scores=score(each, each, each, higher=False)) for each in (3.0, 1.0, 2.0)]
    assert Grid(tuple(low), "loss").best is low[1]
    assert Grid((failed,), "loss").public()["best"] is None


def test_what_differs_on_each_item_is_told_apart_though_the_intervals_overlap() -> None:
    draw = random.Random(0)
    hard = [draw.random() for _ in range(60)]  # items differ far more than the models do
    better = [each + 0.02 + draw.uniform(0, 0.01) for each in hard]
    alike = [each + draw.choice((-0.01, 0.01)) for each in better]
    metric = Mean("said", lambda _items, outputs: [float(each.text) for each in outputs])

    def evaluation(name: str, values: list[float], first: int = 0) -> Evaluation:
        items = tuple(Item(f"{first + place}") for place in range(len(values)))
        return Evaluation(name, items, tuple(Output(str(value)) for value in values))

    each = {
        0: evaluation("hard", hard),
        1: evaluation("better", better),
        2: evaluation("alike", alike),
        3: evaluation("of another split", hard, 1000),
    }
    scores = {place: {"said": found.scores([metric], seed=1)["said"].to_json()} for place, found in each.items()}
    runs = [GridRun({}, scores={"said": {**scores[at]["said"], "higher_is_better": True}}) for at in range(4)]
    grid = compared(Grid((*runs, GridRun({}, error="no")), "said"), each, metric, 1)
    best = grid.runs.index(grid.best) if grid.best else None
    assert best in (1, 2)
    assert grid.runs[0].scores["said"]["high"] > grid.runs[1].scores["said"]["low"]
    behind = grid.runs[0].against_best
    assert behind is not None
    assert (behind.decided, behind.wins) == (True, False)
    assert behind.level == pytest.approx(1 - 0.05 / 3)
    assert [run.against_best for run in grid.runs[3:]] == [None, None]
    assert grid.undecided() == 2  # the one alike, and that of another split


@pytest.mark.slow
def test_a_grid_of_real_trainings(project: Project) -> None:
    def standing() -> tuple[str, int, int]:
        with open_project(project.folder) as opened:
            versions = opened.record.versions
            champion = versions.alias("model", "champion")
            ledger = opened.record.ledger
            promoted = sum(1 for _ in ledger.rows("alias", "deployment", "turn.begun"))
            return champion.digest if champion else "", len(versions.all("model")), promoted

    before = standing()
    found = json.loads(project.call("run", "--set", "develop.tokens=1000,2000", "--json").stdout)
    assert found["ok"] is True
    assert found["by"] == "log_likelihood"
    assert [run["settings"] for run in found["grid"]] == [{"develop.tokens": "1000"}, {"develop.tokens": "2000"}]
    values = [run["scores"]["log_likelihood"]["value"] for run in found["grid"]]
    assert values[found["best"]] == max(values)
    assert len({run["model"] for run in found["grid"]}) == 2
    behind = found["grid"][1 - found["best"]]["against_best"]
    assert behind["n"] == found["grid"][0]["scores"]["log_likelihood"]["n"]
    assert behind["difference"] <= 0
    assert found["undecided"] == (0 if behind["decided"] else 1)
    assert standing() == before
    said = project.call("run", "--set", "develop.tokens=1000,2000").stdout
    best = found["grid"][found["best"]]["settings"]["develop.tokens"]
    assert f"treadle run --set develop.tokens={best}" in said
    assert "nothing was promoted" in said
    assert "[95 % interval]" in said
    for arguments, says in (
        (("--next",), "--next"),
        (("--until", "govern"), "promotes none"),
        (("--until", "x"), "no stage"),
    ):
        done = project.call("run", "--set", "seed=1,2", *arguments, check=2)
        assert says in done.stderr
