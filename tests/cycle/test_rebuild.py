"""The steps behind a champion, run again from what is recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from docs.test_json import differences, promised
from small_project import Project
from treadle.core.errors import UserError
from treadle.core.runs import RunRecord
from treadle.core.steps import Step
from treadle.project import open_project
from treadle.rebuilding import _compared, built_in_steps, rebuild
from treadle.tracking import start_run


def test_the_champion_again(project: Project) -> None:
    before = project.json("verify")["checked"]
    found = project.json("rebuild", "@champion")
    assert not differences(promised("rebuild"), found)
    verdicts = {step["step"]: step["verdict"] for step in found["steps"]}
    assert verdicts["collect.gather"] == "equal"
    assert verdicts["develop.train"] == "equal"
    assert set(verdicts.values()) == {"equal"}
    assert found["steps"][-1]["step"] == "develop.train"
    assert found["steps"][-1]["outputs"]["model"] == [found["digest"]] * 2
    assert found["ok"]
    assert project.json("verify")["checked"] == before
    assert "gave the same bytes again" in project.call("rebuild", "dataset@v1").stdout


def test_a_source_that_changed_is_noticed(project: Project) -> None:
    project.data.write_text(project.data.read_text().replace("kettle", "teapot"))
    done = project.call("rebuild", "dataset@v1", "--json", check=1)
    steps = {step["step"]: step for step in json.loads(done.stdout)["steps"]}
    assert steps["collect.gather"]["verdict"] == "failed"
    assert "source changed" in steps["collect.gather"]["detail"]
    assert steps["prepare.assemble"]["verdict"] == "equal"  # from what it took then


def test_what_cannot_be_rebuilt(project: Project, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("1")
    with start_run("mine", folder=project.folder, system=None) as run:
        own = run.artifact(tmp_path / "weights", kind="model")
    with open_project(project.folder) as opened:
        (step,) = rebuild(opened, own.digest).steps
        assert (step.verdict, "an experiment" in step.detail) == ("not rebuilt", True)
        assert not rebuild(opened, own.digest).ok
        with pytest.raises(UserError, match="rebuild takes an artifact"):
            rebuild(opened, run.id)


def record(outputs: str, metrics: dict[str, float]) -> RunRecord:
    return RunRecord(
        "run-1", "a.b", "", "done", "", 1.0, ("{}", json.dumps(metrics), "{}", json.dumps({"x": outputs}), "{}")
    )


def test_verdicts() -> None:
    strict, loose = (Step(test_verdicts, "a.b", 1, (), tolerance) for tolerance in (0.0, 0.05))
    one = record("b3:1", {"loss": 1.0, "seconds": 3.0})
    assert _compared(strict, one, record("b3:1", {}))[0] == "equal"
    near, far = record("b3:2", {"loss": 1.02, "seconds": 9.0}), record("b3:2", {"loss": 1.2})
    assert _compared(loose, one, near)[0] == "within tolerance"
    assert _compared(strict, one, near)[0] == "different"
    assert _compared(loose, one, far)[0] == "different"
    assert _compared(loose, one, record("b3:2", {}))[0] == "different"


def test_every_step_is_known() -> None:
    assert {
        "collect.gather",
        "prepare.clean",
        "develop.train",
        "deploy.bundle",
        "govern.judge",
    } <= built_in_steps().keys()
