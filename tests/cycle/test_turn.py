"""One turn of the cycle, what is remembered of it, and what a plan says beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from small_project import Project
from treadle.project import open_project


def steps(result: Any) -> dict[str, str]:
    return {
        f"{step['step']}:{number}": step["status"]
        for stage in result["stages"]
        for number, step in enumerate(stage["steps"])
    }


def test_eight_stages_run_and_promote(built: tuple[Project, Any]) -> None:
    project, result = built
    assert result["ok"]
    assert [stage["stage"] for stage in result["stages"]] == [
        "collect",
        "prepare",
        "develop",
        "track",
        "deploy",
        "monitor",
        "govern",
        "improve",
    ]
    assert set(steps(result).values()) == {"done"}
    status = project.json("status")
    assert status["champion"]["ref"] == "model/helper@v1"
    assert status["counts"]["interactions"] == 4
    assert set(status) >= {"project", "champion", "challenger", "deployment", "alerts", "counts"}
    assert set(status["counts"]) == {"documents", "runs", "interactions", "feedback"}


def test_again_everything_is_remembered(project: Project) -> None:
    assert set(steps(project.json("plan")).values()) == {"cached"}
    assert set(steps(project.json("run")).values()) == {"cached"}
    assert project.json("verify")["ok"]


def test_one_evaluation_setting_runs_evaluation_and_what_follows(project: Project) -> None:
    project.edit("max_tokens: 8", "max_tokens: 9")
    planned = {name for name, status in steps(project.json("plan")).items() if status != "cached"}
    ran = {name for name, status in steps(project.json("run")).items() if status != "cached"}
    assert planned == ran
    names = {name.partition(":")[0] for name in ran}
    assert {"develop.evaluate", "develop.evaluate_base", "govern.judge"} <= names
    assert not {"develop.train", "deploy.optimize", "prepare.assemble", "collect.gather"} & names


def test_a_plan_says_why(project: Project) -> None:
    project.edit("learning_rate: 1e-2", "learning_rate: 2e-2")
    reasons: dict[str, str] = {}
    for stage in project.json("plan")["stages"]:
        for step in stage["steps"]:
            reasons.setdefault(step["step"], step["reason"])
    assert "learning_rate" in reasons["develop.train"]
    assert reasons["prepare.tokenize"] == "nothing changed"
    assert "model" in reasons["develop.evaluate"]


def test_every_step_is_a_run_with_its_surroundings(project: Project) -> None:
    runs = project.json("runs")
    assert {"id", "step", "status", "started", "seconds", "parameters", "metrics", "inputs", "outputs"} == set(runs[0])
    training = next(run for run in runs if run["step"] == "develop.train")
    assert training["metrics"]["steps"] >= 3
    assert training["parameters"]["learning_rate"] == 0.01
    shown = project.json("runs", training["id"])
    assert [point["step"] for point in shown["points"]] == list(range(1, int(training["metrics"]["steps"]) + 1))
    assert all(point["loss"] > 0 for point in shown["points"])
    assert shown["seed"] == 17
    assert len(shown["environment"]) == 67


def test_collect_and_prepare_account_for_everything(project: Project) -> None:
    for stage in ("collect", "prepare"):
        counts = project.json(stage)
        assert counts["in"] == counts["kept"] + sum(counts["dropped"].values()) + len(counts["quarantined"])
    assert project.json("collect")["in"] == 70


def test_a_second_version_is_compared_with_the_champion(project: Project) -> None:
    project.edit("tokens: 3000", "tokens: 4000")
    result = project.json("run", check=None)
    diff = project.json("diff", "model@v1", "model@v2")
    assert diff["settings"]["develop.train.budget"] == [3000, 4000]
    assert diff["documents"]["a"] <= diff["documents"]["b"]
    gates = next(stage for stage in result["stages"] if stage["stage"] == "govern")
    assert gates["steps"][0]["status"] == "done"
    again = project.json("run", check=None)
    assert set(steps(again).values()) == {"cached"}


def test_a_champion_that_fails_a_gate_is_told_and_stays(project: Project) -> None:
    strict = ("run", "--set", "govern.gates=[{license: {allow: [MIT]}}]")
    done = project.call(*strict, check=1)
    assert "license NO: not allowed" in done.stdout
    assert "@champion is v1 already: gates said no: license" in done.stdout
    assert "treadle rollback" in done.stdout
    assert project.json(*strict, check=1)["ok"] is False
    status = project.json("status")
    assert (status["champion"]["number"], status["turn"]["outcome"]) == (1, "unchanged")
    assert project.json("run")["ok"]


def test_before_anything_answers_somebody_is_told_where_to_look(fresh: Callable[[], Project]) -> None:
    project = fresh()
    assert project.call("ask", "Hello?", check=2).stderr.strip().endswith("run: treadle run")
    with open_project(project.folder) as opened:
        opened.record.versions.register("model", "b3:" + "5" * 64, None)
    assert "treadle status says why model@v1 was not" in project.call("ask", "Hello?", check=2).stderr


def test_approval_waits_for_a_person(project: Project) -> None:
    project.edit("  purpose: a test", "  purpose: a test\n  approval: one")
    project.edit("tokens: 3000", "tokens: 5000")
    project.call("run")
    status = project.json("status")
    if status["champion"]["number"] == 1:  # the gates passed and nobody has said yes yet
        assert project.json("approve", "model@v2", "--reason", "reads well")["outcome"] == "promoted"
        assert project.json("status")["champion"]["number"] == 2
    assert project.json("verify")["ok"]


@pytest.mark.slow
def test_torch_serves_where_nothing_runs_gguf(project: Project) -> None:
    project.edit("deploy:\n", "deploy:\n  engine: transformers\n")
    result = project.json("run")
    deployed = {
        step["step"]: step for stage in result["stages"] for step in stage["steps"] if stage["stage"] == "deploy"
    }
    assert "deploy.measure" not in deployed
    assert deployed["deploy.smoke"]["status"] == "done"
    assert project.json("deploy")["optimization"] == {}
    assert project.json("ask", "How do I clean my kettle?")["lineage"]["verified"]
