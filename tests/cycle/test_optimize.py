"""``treadle optimize``: ways measured against the unchanged model, a lossy one refused, a kept one released."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from docs.test_json import differences, promised
from small_project import Project
from treadle.core.errors import UserError
from treadle.optimizing import Optimizing, optimize_ref
from treadle.project import open_project
from treadle.record.release import Release
from treadle.stages.deploy.frontier import frontier, page_of
from treadle.stages.track.walk import lineage

WAYS = '''
from treadle.core.errors import UserError
from treadle.lm.pruning import prune_weights


class Ruined:
    """Nine of ten weights made 0."""

    version, tasks, packages, learns = 1, ("chat",), (), False
    engine, settings = "transformers", {"precision": "f32"}

    def write(self, material, out):
        prune_weights(material.model, out, 0.9)


class Impossible(Ruined):
    """Cannot be done."""

    def write(self, material, out):
        raise UserError("this model cannot be shrunk")


class ForLabels(Ruined):
    """Not for chat."""

    tasks = ("classify",)
'''


def measure(project: Project, *ways: str, **how: float) -> Optimizing:
    with open_project(project.folder) as opened, opened.record.workspace.exclusive():
        return optimize_ref(opened, "model@v1", ways=ways, items=12, limit=0.05, **how)  # type: ignore[arg-type]


def test_each_way_is_measured_and_a_lossy_one_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.folder / "my_ways.py").write_text(WAYS)
    found = measure(project, "gguf-q8_0", "my_ways:Ruined")
    points = {point.name: point for point in found.points}
    assert list(points) == ["unchanged", "gguf-q8_0", "my_ways:Ruined"]
    assert (points["unchanged"].loss, points["unchanged"].verdict) == (0, "kept")
    assert points["my_ways:Ruined"].verdict == "refused"
    assert points["my_ways:Ruined"].low > 0.05
    small, whole = points["gguf-q8_0"], points["unchanged"]
    assert (small.verdict, small.engine) == ("kept", "openvino")
    assert small.low <= small.loss <= small.high
    assert small.value / whole.value - 1 == pytest.approx(small.loss, abs=1e-6)
    assert 0 < small.size < whole.size
    assert small.speed > 0
    assert not differences(promised("optimize") | {"left_out": {}}, json.loads(json.dumps(found.public())))
    with open_project(project.folder) as opened:
        made = opened.record.runs.find(step="deploy.judge")
        assert len(made) == 3
        assert len(opened.record.runs.find(step="deploy.bundle")) == 1  # that of the turn: nothing was released
        reached = lineage(opened.record, found.report.digest, limit=1_000)
        assert "document" in {node.kind for node in reached.nodes.values()}
    again = measure(project, "gguf-q8_0", "my_ways:Ruined")
    assert again.report == found.report
    with open_project(project.folder) as opened:
        assert len(opened.record.runs.find(step="deploy.judge")) == 3
    late = measure(project, "gguf-q8_0", budget=0.0)
    assert [point.name for point in late.points] == ["unchanged"]
    assert late.drawn["left_out"] == {"gguf-q8_0": "the budget of 0 seconds was over"}


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("gguf-q8", "did you mean 'gguf-q8_0'"),
        ("my_ways:ForLabels", "it is for classify, and this model is for chat"),
        ("my_ways:Nothing", "defines no 'Nothing'"),
    ],
)
def test_a_way_that_there_is_not_is_named(project: Project, way: str, said: str) -> None:
    (project.folder / "my_ways.py").write_text(WAYS)
    with pytest.raises(UserError, match=said):
        measure(project, way)


def test_what_is_no_model_is_said(project: Project) -> None:
    said = project.call("optimize", "dataset@v1", check=2).stderr
    assert "optimize dataset@v1: that is a dataset; expected a model" in said
    assert said.count("\n") == 1


def row(name: str, speed: float, size: int, loss: float, verdict: str = "kept") -> dict[str, object]:
    figures = {"low": loss - 0.01, "high": loss + 0.01, "value": 9.0, "pace": speed, "memory": 1, "items": 9}
    return {"name": name, "speed": speed, "size": size, "loss": loss, "verdict": verdict, "command": "x", **figures}


def test_the_frontier_has_what_nothing_beats() -> None:
    rows = [
        row("unchanged", 10, 100, 0.0),
        row("small", 30, 25, 0.004),
        row("beaten", 20, 30, 0.005),
        row("lossy", 90, 10, 0.4, "refused"),
    ]
    assert frontier(rows) == {"unchanged", "small"}


def test_the_page_shows_every_point_and_loads_nothing(tmp_path: Path) -> None:
    rows = [row("unchanged", 10, 100, 0.0), row("<b>way</b>", 30, 25, -0.002), row("lossy", 90, 10, 0.4, "refused")]
    drawn = {"ref": "model@v1", "dataset": "b3:00", "items": 9, "metric": "perplexity", "limit": 0.01}
    drawn |= {"unit": "tokens", "unchanged": "unchanged", "points": rows, "left_out": ["<torchao>"]}
    page = page_of({**drawn, "frontier": ["<b>way</b>", "unchanged"]})
    assert page.count("<circle") == 3
    assert "<b>way</b>" not in page
    assert "&lt;b&gt;way&lt;/b&gt;" in page
    assert "&lt;torchao&gt;" in page
    assert "▲ +40%" in page
    assert "default-src 'none'" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.slow
def test_what_is_kept_is_released_and_what_is_lossy_is_not(project: Project) -> None:
    (project.folder / "my_ways.py").write_text(WAYS)
    project.edit(
        "  system_prompt:", "  optimization: {way: 'my_ways:Ruined', max_loss: 0.05, items: 12}\n  system_prompt:"
    )
    said = project.call("deploy", check=1).stderr
    assert "my_ways:Ruined loses" in said
    assert "more than max_loss 5.00%" in said
    project.edit("my_ways:Ruined", "gguf-q8_0-f32")
    found = project.json("deploy")
    with open_project(project.folder) as opened:
        spec = Release(found["release"], opened.record.store).read()
    assert spec.optimization == {"format": "gguf-q8_0-f32", "settings": {"precision": "f32"}}
    assert found["optimization"]["loss"] <= 0.05
    assert project.json("run")["ok"]
    assert project.json("ask", "How do I clean my lamp?")["lineage"]["verified"]
    assert project.json("verify")["ok"]
